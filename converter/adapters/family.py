"""Which model family an adapter was trained for, from its module names and shapes."""

import re
from collections import Counter
from collections.abc import Mapping

from converter.adapters.base import Shape
from converter.adapters.keys import component_of, split_key
from converter.adapters.oft_peft import block_size
from converter.checkpoint import TensorInfo

CONTEXT_FAMILIES = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
"""Width of the text encoder's output, which `attn2.to_k` takes -> family."""
OTHER_MODELS = {"double_blocks": "flux", "single_blocks": "flux", "joint_blocks": "sd3"}
INPUT_PARTS = ("down", "hada_w1_b", "diff", "whole")
"""Parts whose second extent is the layer's input."""


def key_family(key: str, info: TensorInfo) -> str | None:
    """The family that this key alone gives away, if any."""
    name = key.replace(".", "_")
    for marker, family in OTHER_MODELS.items():
        if marker in name:
            return family
    split = split_key(key)
    module = name if split is None else split.module
    # SD1.x and SD2.x have one text encoder and one transformer block per attention.
    if component_of(module) == "text_encoder_2" or re.search(r"transformer_blocks_[1-9]", module):
        return "sdxl"
    takes_context = module.endswith(("attn2_to_k", "attn2_to_v"))
    if takes_context and split:
        return CONTEXT_FAMILIES.get(_inputs(split.part, info.shape))
    return None


def _inputs(part: str, shape: Shape) -> int:
    """How many inputs a layer has that this part belongs to; 0 where it does not tell."""
    if part in INPUT_PARTS and len(shape) >= 2:
        return shape[1]
    if part == "boft_R" and len(shape) == 4:
        return shape[1] * shape[2]
    if part == "oft_R" and len(shape) == 2 and shape[0] > 1:  # one may stand for all
        return shape[0] * block_size(shape[1])
    return 0


def adapter_family(tensors: Mapping[str, TensorInfo]) -> str:
    """``sd15``, ``sd2``, ``sdxl``, ``flux``, ``sd3`` or ``unknown``: what most telling keys say."""
    votes = Counter(
        family for key, info in tensors.items() if (family := key_family(key, info)) is not None
    )
    if votes:
        return votes.most_common(1)[0][0]
    for key, info in tensors.items():
        split = split_key(key)
        if split and split.part == "down" and split.module.endswith("proj_in"):
            return "sd15" if len(info.shape) == 4 else "sd2"
    return "unknown"
