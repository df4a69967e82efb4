"""A folder of one adapter: PEFT's weights with their configuration, or diffusers' weights.

Format: what `save_pretrained` of PEFT and `save_lora_weights` of diffusers write.
"""

from pathlib import Path

CONFIG = "adapter_config.json"
"""PEFT's configuration, beside its weights."""
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WEIGHTS = (*PEFT_WEIGHTS, "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


def adapter_in(folder: Path) -> Path | None:
    """The weights of the adapter that a folder holds, if it holds one."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
