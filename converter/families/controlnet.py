"""A ControlNet in the original layout: a copy of the UNet's way down, a hint, and exits.

Layout: https://github.com/lllyasviel/ControlNet, `cldm/cldm.py`.
"""

from collections.abc import Iterator

from converter.architecture import UNetArchitecture
from converter.families.rules import Place, TensorRule
from converter.families.unet import down_residuals, down_rules

CONTROLNET_PREFIX = "control_model."
HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
"""Outputs of the convolutions on a ControlNet's hint, before the one to the UNet's width."""


def controlnet_rules(arch: UNetArchitecture) -> Iterator[TensorRule]:
    """Every tensor of a ControlNet for this UNet."""
    root = Place("", CONTROLNET_PREFIX)
    yield from down_rules(root, arch)
    inputs = 3
    for index, outputs in enumerate((*HINT_CHANNELS, arch.block_channels[0])):
        name = {0: "conv_in", len(HINT_CHANNELS): "conv_out"}.get(index, f"blocks.{index - 1}")
        place = root.at(f"controlnet_cond_embedding.{name}", f"input_hint_block.{2 * index}")
        yield from place.weight_and_bias(outputs, inputs, 3, 3)
        inputs = outputs
    for index, (channels, _) in enumerate(down_residuals(arch)):
        place = root.at(f"controlnet_down_blocks.{index}", f"zero_convs.{index}.0")
        yield from place.weight_and_bias(channels, channels, 1, 1)
    middle = root.at("controlnet_mid_block", "middle_block_out.0")
    yield from middle.weight_and_bias(arch.block_channels[-1], arch.block_channels[-1], 1, 1)
