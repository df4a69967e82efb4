"""LCM: recognised, as a LoRA or a whole UNet, so that it draws in the few steps it was trained for.

The published training (https://arxiv.org/abs/2311.05556, `train_lcm_distill_lora` of diffusers)
changes a certain list of layers of the UNet and nothing else. A trainer's metadata decides first:
a style LoRA may change the same layers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from converter.adapters.adapter import Adapter
from converter.adapters.keys import component_of
from converter.architecture import UNetArchitecture

LAYERS = (
    "to_q", "to_k", "to_v", "to_out_0", "proj_in", "proj_out", "ff_net_0_proj", "ff_net_2",
    "conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers_0_conv", "upsamplers_0_conv",
)  # fmt: skip
TELLING = ("modelspec.title", "modelspec.description", "ss_output_name", "ss_training_comment")
"""Metadata in which a trainer's user says what the file is."""
TRAINER = "ss_network_module"
"""Metadata that kohya's and LyCORIS's trainers write; neither distils."""

SAMPLING: Mapping[str, Any] = {"scheduler": "lcm", "steps": 4, "guidance": 1.0}
"""How an LCM-LoRA is meant to be sampled, as its publication recommends."""

MODEL_SAMPLING: Mapping[str, Any] = {**SAMPLING, "guidance": 8.0}
"""The same of a full LCM, which takes the guidance scale as an input (arXiv 2310.04378)."""


def is_lcm(modules: Iterable[str], metadata: Mapping[str, str]) -> bool:
    """Tell from a file's metadata, else from its flattened module names."""
    if any(re.search(r"(?<![a-z])lcm(?![a-z])", metadata.get(n, "").lower()) for n in TELLING):
        return True
    if TRAINER in metadata:
        return False
    seen = set()
    for module in modules:
        layer = next((layer for layer in LAYERS if module.endswith(f"_{layer}")), None)
        if layer is None or component_of(module) is not None:
            return False
        seen.add(layer)
    return seen == set(LAYERS)


def recommended_sampling(
    unet: UNetArchitecture | None, adapters: Iterable[Adapter]
) -> dict[str, Any] | None:
    """How to draw with a UNet that these are merged into, if it or one of them is an LCM."""
    if unet is not None and unet.timestep_cond_dim:
        return {**MODEL_SAMPLING, "because": "the UNet is an LCM"}
    for adapter in adapters:
        if adapter.lcm and adapter.active("unet"):
            return {**SAMPLING, "because": f"{adapter.choice.path.name} is an LCM-LoRA"}
    return None
