"""The trained weights as the files that people have: original names, kohya's names, float16."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from converter.components import rules
from converter.families.controlnet import controlnet_rules
from converter.families.rules import TensorRule
from converter.files import replacing
from examples.mini.modules import MINI
from examples.mini.training import Weights

KOHYA_PREFIX = {"text/": "lora_te_text_model_", "unet/": "lora_unet_"}


def write_checkpoint(path: Path, parts: dict[str, Weights]) -> None:
    """Write a single-file checkpoint; `parts` maps each component to its module's state dict."""
    tensors: Weights = {}
    for component, weights in parts.items():
        tensors |= _renamed(weights, rules(component, MINI))
    write_half(path, tensors)


def write_controlnet(path: Path, weights: Weights) -> None:
    """Write a ControlNet in the original layout."""
    assert MINI.unet is not None
    write_half(path, _renamed(weights, controlnet_rules(MINI.unet)))


def write_lora(path: Path, weights: Weights) -> None:
    """Write a low-rank change in kohya's layout; alpha equals the rank."""
    out: Weights = {}
    for name, value in weights.items():
        layer, factor = name.rsplit(".", 1)
        prefix = next(p for p in KOHYA_PREFIX if layer.startswith(p))
        key = KOHYA_PREFIX[prefix] + layer.removeprefix(prefix).replace(".", "_")
        out[f"{key}.lora_{factor}.weight"] = value
        if factor == "down":
            out[f"{key}.alpha"] = torch.tensor(float(value.shape[0]))
    write_half(path, out)


def write_half(path: Path, tensors: Weights) -> None:
    """Write tensors as float16, whole or not at all."""
    with replacing(path) as work:
        save_file({n: t.half().contiguous() for n, t in tensors.items()}, work, {"format": "pt"})


def _renamed(weights: Weights, table: Iterable[TensorRule]) -> Weights:
    """Rename by a family's table, complete in both directions."""
    left = dict(weights)
    out = {}
    for rule in table:
        value = left.pop(rule.name)
        if ".mid.attn_1." in rule.source and value.dim() == 2:
            value = value[:, :, None, None]  # 1x1 convolutions in the original
        out[rule.source] = value
    if left:
        raise ValueError(f"no place in the original layout for {', '.join(left)}")
    return out
