"""A ControlNet in the original layout: a copy of the UNet's way down, a hint, and exits.

Layout: https://github.com/lllyasviel/ControlNet, `cldm/cldm.py`. A model can have several; they are
the components ``controlnet``, ``controlnet_2`` and so on, in the order in which they are given.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, takewhile

from converter.architecture import CONTROLNET, UNetArchitecture, controlnet_name
from converter.checkpoint import TensorInfo
from converter.families.infer_unet import infer_unet
from converter.families.rules import Place, TensorRule
from converter.families.unet import UNET_PREFIX, down_residuals, down_rules

CONTROLNET_PREFIX = "control_model."
"""What the original files put before a ControlNet's names."""

HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
"""Outputs of the convolutions on a ControlNet's hint, before the one to the UNet's width."""

EXITS = ("input_hint_block.", "zero_convs.", "middle_block_out.")
"""Beginnings of the names that a ControlNet has and its UNet has not."""

DIFFERENCE = "difference"
"""A tensor of this name marks a ControlNet stored as its difference from the UNet."""

Tensors = Mapping[str, TensorInfo]


def is_controlnet(component: str) -> bool:
    """Whether a component of this name is a ControlNet."""
    return component.startswith(CONTROLNET)


def kind_of(component: str) -> str:
    """``controlnet`` for every ControlNet; any other component is a kind of its own."""
    return CONTROLNET if is_controlnet(component) else component


def home(component: str) -> str:
    """The prefix under which the tensors of a ControlNet stand beside those of the checkpoint."""
    return f"{component}."


def controlnets_in(tensors: Tensors) -> list[str]:
    """The ControlNets that stand among these tensors."""

    def is_there(name: str) -> bool:
        return any(tensor.startswith(home(name)) for tensor in tensors)

    return list(takewhile(is_there, map(controlnet_name, count())))


def as_unet(tensors: Tensors, component: str) -> dict[str, TensorInfo]:
    """The tensors of one ControlNet, named as those of a UNet."""
    mine = home(component)
    return {
        UNET_PREFIX + name.removeprefix(mine): info
        for name, info in tensors.items()
        if name.startswith(mine)
    }


def infer_controlnets(
    tensors: Tensors, attention_heads: int | None, time_ids: int
) -> Iterator[UNetArchitecture]:
    """Read the hyper-parameters of every ControlNet; the arguments are those of `infer_unet`."""
    for name in controlnets_in(tensors):
        found = infer_unet(as_unet(tensors, name), attention_heads, time_ids)
        if found is not None:
            yield copied_part(found)


def copied_part(unet: UNetArchitecture) -> UNetArchitecture:
    """What a ControlNet copies of a UNet: all but the way up."""
    return replace(unet, up_depths=(), out_channels=0)


def controlnet_rules(
    arch: UNetArchitecture, prefix: str = CONTROLNET_PREFIX
) -> Iterator[TensorRule]:
    """Every tensor of a ControlNet for this UNet; the file's names begin with `prefix`."""
    root = Place("", prefix)
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
