"""Adapter key spellings: a key is a module and a part; modules are found by flattened name.

Trainers write the same module as ``lora_unet_down_blocks_0_...`` (kohya), ``unet.down_blocks.0.``
(diffusers, PEFT) or after the original layout (``lora_unet_input_blocks_1_1_...``). With every
dot turned into an underscore these are one name each, without collisions, so no pattern is needed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from converter.families.rules import TensorRule

PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
}
"""Ending of a key -> which factor of ``W + scale * alpha / rank * up @ down`` it holds."""

OTHER_KINDS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".lora_magnitude_vector.weight": "DoRA",
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".lokr_w1_a": "LoKr",
    ".oft_blocks": "OFT",
    ".oft_diag": "OFT",
    ".a1.weight": "GLoRA",
    ".on_input": "IA3",
    ".diff": "full difference",
    ".w_norm": "norm difference",
    ".lora_mid.weight": "LoCon (Tucker)",
}
"""Endings of keys that mark the relatives of LoRA, so that they can be named when refused."""

UNET_PREFIXES = ("lora_unet_", "unet_", "diffusion_model_", "")
TEXT_PREFIXES = (
    "lora_te_text_model_",
    "lora_te1_text_model_",
    "text_encoder_text_model_",
    "lora_te_",
    "text_encoder_",
)


@dataclass(frozen=True)
class AdapterKey:
    """A key of an adapter file, split: the flattened module name and the part it holds."""

    key: str
    module: str
    part: str


def split_key(key: str) -> AdapterKey | None:
    """Split a key; None when its ending is not known."""
    for ending, part in PARTS.items():
        if key.endswith(ending):
            module = key.removesuffix(ending).removeprefix("base_model.model.")
            module = module.replace(".processor.", ".")
            if ending.startswith("_lora") and module.endswith("to_out"):
                module += ".0"  # old diffusers name the list, not its first layer
            return AdapterKey(key, module.replace(".", "_"), part)
    return None


def adapter_kind(keys: Iterable[str]) -> str | None:
    """``LoRA`` or the relative's name; None when the keys are no adapter's."""
    keys = list(keys)
    for ending, kind in OTHER_KINDS.items():
        if any(key.endswith(ending) for key in keys):
            return kind
    split = (split_key(key) for key in keys)
    return "LoRA" if any(s is not None and s.part == "down" for s in split) else None


def module_table(rules: Mapping[str, list[TensorRule]]) -> dict[str, tuple[str, str]]:
    """Every spelling of every module with a weight -> (component, tensor name).

    `rules` holds the tables of the components that adapters can change.
    """
    table: dict[str, tuple[str, str]] = {}
    for component, entries in rules.items():
        prefixes = UNET_PREFIXES if component == "unet" else TEXT_PREFIXES
        for rule in entries:
            if not rule.name.endswith(".weight"):
                continue
            source = rule.source.removeprefix("model.diffusion_model.")
            for path in {rule.name, source}:
                flat = path.removesuffix(".weight").replace(".", "_")
                table.update({prefix + flat: (component, rule.name) for prefix in prefixes})
    return table
