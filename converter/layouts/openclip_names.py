"""A text encoder under transformers' names, as OpenCLIP's file holds it: SD2's, SDXL's second one.

Originally: https://github.com/mlfoundations/open_clip, `src/open_clip/transformer.py`: query, key
and value are one matrix, and the text projection is stored transposed. Nothing is copied: a fused
matrix is three places to read, a transposed one a place with other strides.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from converter.checkpoint import TensorInfo

LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
INSIDE = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PROJECTION = "text_projection.weight"


def openclip_tensors(
    tensors: Mapping[str, TensorInfo], *, last_layer_cut: bool
) -> dict[str, TensorInfo]:
    """Map ``text_model.*`` and ``text_projection.weight`` to OpenCLIP's names.

    `last_layer_cut`: the file lacks OpenCLIP's last layer, on which no output depends (SD2). The
    layer before stands in its place, so that the layers count as in the original.
    """
    table: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        inner = name.removeprefix("text_model.")
        layer = LAYER.fullmatch(inner)
        if name == PROJECTION and len(info.shape) == 2 and info.scale is None:
            table["text_projection"] = _transposed(info)
        elif layer is None and not inner.endswith("position_ids"):
            table[OUTSIDE.get(inner, name)] = info
        elif layer is not None and not layer[2].startswith(FUSED):
            module, _, kind = layer[2].rpartition(".")
            place = f"transformer.resblocks.{layer[1]}"
            table[f"{place}.{INSIDE.get(module, module)}.{kind}"] = info
        elif layer is not None and layer[2].startswith(FUSED[0]):
            kind = layer[2].rpartition(".")[2]
            names = [name.replace(FUSED[0], part) for part in FUSED]
            if all(part in tensors for part in names):
                fused = _stacked([tensors[part] for part in names])
                table[f"transformer.resblocks.{layer[1]}.attn.in_proj_{kind}"] = fused
    return {**table, **(_copy_of_last_layer(table) if last_layer_cut else {})}


def _stacked(parts: list[TensorInfo]) -> TensorInfo:
    rows = sum(part.shape[0] if part.shape else 0 for part in parts)
    return replace(parts[0], shape=(rows, *parts[0].shape[1:]), stack=tuple(parts))


def _transposed(info: TensorInfo) -> TensorInfo:
    strides = info.strides or (info.shape[1], 1)
    return replace(info, shape=info.shape[::-1], strides=strides[::-1])


def _copy_of_last_layer(table: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    numbered = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
    found = [(match, info) for name, info in table.items() if (match := numbered.fullmatch(name))]
    last = max((int(match[1]) for match, _ in found), default=-1)
    return {
        f"transformer.resblocks.{last + 1}.{match[2]}": info
        for match, info in found
        if int(match[1]) == last
    }
