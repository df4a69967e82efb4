"""Which model family an adapter was trained for, from its module names and shapes."""

import re
from collections.abc import Mapping

from converter.checkpoint import TensorInfo

CONTEXT_FAMILIES = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
OTHER_MODELS = {"double_blocks": "flux", "single_blocks": "flux", "joint_blocks": "sd3"}


def adapter_family(tensors: Mapping[str, TensorInfo]) -> str:
    """``sd15``, ``sd2``, ``sdxl``, ``flux``, ``sd3`` or ``unknown``."""
    names = [name.replace(".", "_") for name in tensors]
    for marker, family in OTHER_MODELS.items():
        if any(marker in name for name in names):
            return family
    if any(name.startswith(("lora_te2_", "text_encoder_2_")) for name in names):
        return "sdxl"
    deep = re.compile(r"transformer_blocks_[1-9]")  # SD1.x and SD2.x have one per attention
    if any(deep.search(name) for name in names):
        return "sdxl"
    for name, info in tensors.items():
        if re.search(r"attn2[._]to_k\b.*(down|lora_A)", name.replace("_lora", ".lora")):
            by_context = CONTEXT_FAMILIES.get(info.shape[1])
            if by_context is not None:
                return by_context
    projection = next((i for n, i in tensors.items() if re.search(r"proj_in.*(down|A)", n)), None)
    if projection is not None:
        return "sd15" if len(projection.shape) == 4 else "sd2"
    return "sd15" if any("attn1" in n or "self_attn" in n for n in names) else "unknown"
