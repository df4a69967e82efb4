"""Scaled float8: each quantised weight has a factor beside it that gives the values back.

Written by ComfyUI and its converters: ``X.weight`` in float8 with ``X.scale_weight`` (newer files:
``X.weight_scale``), one float32 or one per row; a tensor named ``scaled_fp8`` marks the file.
Source: https://github.com/comfyanonymous/ComfyUI, `comfy/ops.py` (`scaled_fp8_ops`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from converter.checkpoint import TensorInfo
from converter.errors import InputError

SCALES = (".scale_weight", ".weight_scale")
NOT_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", "scaled_fp8")
"""Endings of the tensors that serve the quantisation, those of the activations too."""


def descaled(path: Path, tensors: Mapping[str, TensorInfo]) -> Mapping[str, TensorInfo]:
    """Attach each factor to its weight and drop what only served the quantisation.

    Raises InputError for a factor that fits no weight.
    """
    if not any(name.endswith(NOT_WEIGHTS) for name in tensors):
        return tensors
    table = {name: info for name, info in tensors.items() if not name.endswith(NOT_WEIGHTS)}
    for name, scale in tensors.items():
        for ending in SCALES:
            if name.endswith(ending):
                weight = name.removesuffix(ending) + ".weight"
                table[weight] = _scaled(path, name, table.get(weight), scale)
    return table


def _scaled(path: Path, name: str, weight: TensorInfo | None, scale: TensorInfo) -> TensorInfo:
    if weight is None or scale.parameters not in (1, *weight.shape[:1]):
        shape = "no weight" if weight is None else f"a weight of shape {list(weight.shape)}"
        raise InputError(
            f"{path}: scale {name!r} of shape {list(scale.shape)} stands beside {shape}: it must "
            "be one number, or one per row; use the unquantised file"
        )
    return replace(weight, scale=scale)
