"""A ControlNet's names: diffusers' ``controlnet_down_blocks.3`` is ``zero_convs.3.0`` originally.

Originally: `cldm/cldm.py` of https://github.com/lllyasviel/ControlNet. The rest is the way down of
a UNet and is named as one.
"""

import re
from collections.abc import Collection

from converter.families.controlnet import HINT_CHANNELS
from converter.layouts.unet_names import original_unet_names

HINT = "controlnet_cond_embedding"
MODULES = {
    f"{HINT}.conv_in": "input_hint_block.0",
    **{
        f"{HINT}.blocks.{i}": f"input_hint_block.{2 * i + 2}" for i in range(len(HINT_CHANNELS) - 1)
    },
    f"{HINT}.conv_out": f"input_hint_block.{2 * len(HINT_CHANNELS)}",
    "controlnet_mid_block": "middle_block_out.0",
}


def original_controlnet_names(names: Collection[str]) -> dict[str, str]:
    """Map each of diffusers' tensor names to the original one, without prefix."""
    return {name: _exit_or_hint(name) or unet for name, unet in original_unet_names(names).items()}


def _exit_or_hint(name: str) -> str | None:
    module, _, tensor = name.rpartition(".")
    if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)", module):
        return f"zero_convs.{found[1]}.0.{tensor}"
    return f"{MODULES[module]}.{tensor}" if module in MODULES else None
