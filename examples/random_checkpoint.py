"""Write a Stable Diffusion checkpoint of any family with random weights, a LoRA and a ControlNet.

The layout is the original single-file one, so every step of the tool runs as on a real file; the
pictures are noise. Values are scaled by fan-in, so that activations stay near one.

    python -m examples.random_checkpoint small.safetensors --lora small-lora.safetensors
    python -m examples.random_checkpoint sdxl.safetensors --model sdxl-full
"""

import argparse
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from converter.architecture import Architecture, UNetArchitecture
from converter.components import available, rules
from converter.families.controlnet import CONTROLNET_PREFIX, controlnet_rules, copied_part
from converter.families.rules import TensorRule
from converter.files import replacing
from converter.weights import Array
from examples.small_models import MODELS

LORA_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out",
    "q_proj", "k_proj", "v_proj", "out_proj", "mlp.fc1", "mlp.fc2",
)  # fmt: skip

Named = tuple[str, tuple[int, ...], Callable[[], Array]]


def write_safetensors(path: Path, tensors: Iterable[Named]) -> None:
    """Write float16 tensors one at a time; each is made when its turn comes."""
    listed = list(tensors)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape, _ in listed:
        end = position + 2 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with replacing(path) as work, work.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, _, make in listed:
            file.write(make().astype(np.float16).tobytes())


def write_checkpoint(path: Path, architecture: Architecture, seed: int = 0) -> None:
    """Write a checkpoint with every component of `architecture`, float16."""
    components = available(architecture)
    _write_rules(path, (r for c in components for r in rules(c, architecture)), seed)


def write_controlnet(
    path: Path, unet: UNetArchitecture, seed: int = 0, prefix: str = CONTROLNET_PREFIX
) -> None:
    """Write a ControlNet for this UNet, float16; its exits are not zero, as if it were trained."""
    _write_rules(path, controlnet_rules(copied_part(unet), prefix), seed)


def _write_rules(path: Path, table: Iterable[TensorRule], seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = {rule.source: rule for rule in table}  # of those fused, any stands for all

    def tensor(rule: TensorRule) -> Named:
        shape = rule.stored_shape
        if rule.source.startswith("first_stage_model.") and ".mid.attn_1." in rule.source:
            shape = (*shape, 1, 1) if len(shape) == 2 else shape  # the original's 1x1 convolutions
        return rule.source, shape, lambda: _values(rule, shape, rng)

    write_safetensors(path, [tensor(rule) for rule in entries.values()])


def _values(rule: TensorRule, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    values = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        is_norm_scale = "norm" in rule.name and rule.name.endswith("weight")
        return 1 + 0.05 * values if is_norm_scale else 0.02 * values
    if "embedding" in rule.name and rule.name.endswith("embedding.weight"):
        return values * np.float32(0.02)
    fan_in = int(np.prod(shape[1:], dtype=np.int64))
    return values * np.float32(0.9 / np.sqrt(fan_in))


def write_lora(
    path: Path, architecture: Architecture, rank: int = 4, seed: int = 1, strength: float = 0.1
) -> None:
    """Write a LoRA in kohya's layout for the attention of UNet and text encoder, alpha = rank/2."""
    write_safetensors(path, _lora(architecture, rank, np.random.default_rng(seed), strength))


def _lora(
    architecture: Architecture, rank: int, rng: np.random.Generator, strength: float
) -> Iterator[Named]:
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    for component, prefix in prefixes.items():
        for rule in rules(component, architecture):
            module = rule.name.removesuffix(".weight")
            if rule.name == module or not module.endswith(LORA_TARGETS):
                continue
            name = prefix + module.replace(".", "_")
            outputs, inputs, *kernel = rule.shape
            down, up = (rank, inputs, *kernel), (outputs, rank, *[1] * len(kernel))
            spread = 1 / np.sqrt(inputs)
            yield f"{name}.lora_down.weight", down, _normal(rng, down, spread)
            yield f"{name}.lora_up.weight", up, _normal(rng, up, strength)
            yield f"{name}.alpha", (), lambda: np.array(rank / 2, np.float32)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> Callable[[], Array]:
    return lambda: rng.standard_normal(shape, np.float32) * np.float32(spread)


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description="Write a random checkpoint (and a LoRA).")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--lora", type=Path, help="also write a LoRA for it")
    parser.add_argument("--rank", type=int, default=4, help="of the LoRA")
    parser.add_argument("--controlnet", type=Path, help="also write a ControlNet for it")
    parser.add_argument("--model", choices=MODELS, default="sd15", help="what to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    architecture = MODELS[options.model]
    write_checkpoint(options.checkpoint, architecture, options.seed)
    if options.lora is not None:
        write_lora(options.lora, architecture, options.rank, seed=options.seed + 1)
    if options.controlnet is not None and architecture.unet is not None:
        write_controlnet(options.controlnet, architecture.unet, seed=options.seed + 2)


if __name__ == "__main__":
    main()
