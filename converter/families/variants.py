"""What kind of its family a checkpoint is: told by channels, missing blocks and depths."""

from converter.architecture import Architecture, UNetArchitecture

BY_INPUTS = {9: "inpaint", 8: "instruct-pix2pix"}
"""Channels of the UNet's input -> variant; the plain ones take the 4 of a latent."""

Depths = tuple[tuple[int, ...], ...]

_FOUR_LEVELS: dict[tuple[Depths, int | None], str] = {
    (((1, 1), (1, 1), (1, 1), (0, 0)), 1): "base",
    (((1,), (1,), (1,), (0,)), 1): "BK-SDM-Base",
    (((1,), (1,), (1,), (0,)), None): "BK-SDM-Small",
    (((1,), (1,), (1,)), None): "BK-SDM-Tiny",
}

BY_DEPTHS: dict[str, dict[tuple[Depths, int | None], str]] = {
    "sd15": _FOUR_LEVELS,
    "sd2": _FOUR_LEVELS,
    "sdxl": {
        (((0, 0), (2, 2), (10, 10)), 10): "base",
        (((0, 0), (2, 2), (4, 4)), 0): "SSD-1B",
        (((0, 0), (1, 1), (2, 2)), 0): "Segmind-Vega",
        (((0,), (2,), (5,)), None): "KOALA-700M",
        (((0,), (2,), (6,)), 6): "KOALA-1B",
    },
    "sdxl-refiner": {(((0, 0), (4, 4), (4, 4), (0, 0)), 4): "base"},
}
"""Family -> transformer depths on the way down and in the middle -> variant."""


def variant(architecture: Architecture) -> str:
    """Name the variant: ``base``, ``inpaint``, ``LCM``, a distilled model's name, or several."""
    if architecture.unet is None:
        return "unknown"
    return ", ".join(_names(architecture.family, architecture.unet)) or "base"


def _names(family: str, unet: UNetArchitecture) -> list[str]:
    names = []
    distilled = BY_DEPTHS[family].get((unet.down_depths, unet.middle_depth), "fewer layers")
    if distilled != "base":
        names.append(distilled)
    if unet.in_channels in BY_INPUTS:
        names.append(BY_INPUTS[unet.in_channels])
    if unet.timestep_cond_dim:
        names.append("LCM")
    return names
