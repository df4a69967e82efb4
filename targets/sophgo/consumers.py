"""What the consumers of bmodels bind at every position, from their own code.

`converter.profiles` says what is made for them. This says a second time, and by other means, what
they take, so that a mistake there, in a pass or in a compiler is found (`conformance.py`).

Sources: https://github.com/ZillaRU/SD-lcm-tpu (`sd/pipeline2.py`, `sd/newtool.py`) for sd-lcm-tpu,
https://github.com/sophgo/sophon-demo (`sample/StableDiffusionV1_5`, `StableDiffusionXL`) for
sophon-demo. Widths are written by what they are in SD1.5 and read from the architecture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from converter.architecture import CONTROLNET, Architecture, UNetArchitecture
from converter.components import part
from converter.families.unet import down_residuals
from converter.interface import Dim


@dataclass(frozen=True)
class Slot:
    """What is fed or read at one position.

    Where a ControlNet and a UNet have slots of one role, both use the same bytes.
    """

    role: str
    shape: tuple[Dim, ...]
    dtypes: tuple[str, ...] = ("float32",)


Table = tuple[Sequence[Slot], Sequence[Slot]]
"""Inputs, all of them; and the outputs that are read, from the first on."""

TOKENS = Slot("tokens", ("batch", 77), ("int32",))
SAMPLE = Slot("sample", ("batch", 4, "height/8", "width/8"))
TIMESTEP = Slot("timestep", (1,), ("float32", "int32"))
HINT = Slot("hint", ("batch", 3, "height", "width"))
PICTURE = Slot("picture", ("batch", 3, "height", "width"))
MOMENTS = Slot("moments", ("batch", 8, "height/8", "width/8"))
SIZES = Slot("sizes and crop", ("batch", 6))

VAE: Mapping[str, Table] = {
    "vae_encoder": ((PICTURE,), (MOMENTS,)),
    "vae_decoder": ((SAMPLE,), (PICTURE,)),
}

DOWN = ((0, 0),) * 3 + ((0, 1), (1, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 3), (3, 3), (3, 3))
"""The residuals of SD1.5's way down: 320 channels at h (three times), 320 at h/2, 640 at h/2
(twice), 640 at h/4, 1280 at h/4 (twice), 1280 at h/8 (three times); as the level that the width is
of, and the level that the size is of."""


def _text(unet: UNetArchitecture) -> Slot:
    return Slot("text", ("batch", 77, unet.context_dim))


def _residuals(unet: UNetArchitecture) -> tuple[Slot, list[Slot]]:
    """The residual of the middle (1280 at h/8), and those of the way down."""
    widths = unet.block_channels
    down = down_residuals(unet)
    if len(down) == len(DOWN):  # a distilled UNet has fewer blocks, and so fewer residuals
        down = [(widths[width], level) for width, level in DOWN]
    middle = _cell("mid residual", widths[-1], len(widths) - 1)
    return middle, [_cell(f"down residual {i}", *shape) for i, shape in enumerate(down)]


def _cell(role: str, channels: int, level: int) -> Slot:
    scale = 8 * 2**level
    return Slot(role, ("batch", channels, f"height/{scale}", f"width/{scale}"))


def _text_encoder(architecture: Architecture) -> Table:
    text = architecture.text_encoder
    assert text is not None
    return (TOKENS,), (Slot("hidden state", ("batch", 77, text.hidden_size)),)


def _sd_lcm_tpu(component: str, architecture: Architecture) -> Table:
    if component in VAE:
        return VAE[component]
    if component == "text_encoder":
        return _text_encoder(architecture)
    unet = part(architecture, component)
    assert isinstance(unet, UNetArchitecture)
    middle, down = _residuals(unet)
    if component == "unet":
        return (SAMPLE, TIMESTEP, _text(unet), middle, *down), (SAMPLE,)
    return (SAMPLE, _text(unet), HINT, TIMESTEP), (*down, middle)


def _sophon_demo(component: str, architecture: Architecture) -> Table:
    if component in VAE:
        return VAE[component]
    if architecture.family == "sdxl":
        return _sophon_demo_xl(component, architecture)
    if component == "text_encoder":
        return _text_encoder(architecture)
    unet = part(architecture, component)
    assert isinstance(unet, UNetArchitecture)
    middle, down = _residuals(unet)
    if component.startswith(CONTROLNET):
        return (SAMPLE, TIMESTEP, _text(unet), HINT), (*down, middle)
    residuals = (middle, *down) if architecture.controlnets else ()
    return (SAMPLE, TIMESTEP, _text(unet), *residuals), (SAMPLE,)


def _sophon_demo_xl(component: str, architecture: Architecture) -> Table:
    if component == "unet":
        unet = architecture.unet
        assert unet is not None
        pooled = Slot("pooled text", ("batch", unet.pooled_dim))
        return (SAMPLE, TIMESTEP, _text(unet), pooled, SIZES), (SAMPLE,)
    text = architecture.text_encoder_2 if component == "text_encoder_2" else None
    text = text or architecture.text_encoder
    assert text is not None
    state = ("batch", 77, text.hidden_size)
    pooled_shape = ("batch", text.projection_dim) if text.projection_dim else state
    # Output 0 of the first text encoder is called pooled there too, and never used.
    return (TOKENS,), (Slot("pooled text", pooled_shape), Slot("hidden state", state))


CONSUMERS: Mapping[str, Callable[[str, Architecture], Table]] = {
    "sd-lcm-tpu": _sd_lcm_tpu,
    "sophon-demo": _sophon_demo,
}
"""By profile: the table of a component."""

MOST_STAGES, MOST_PORTS = 64, 64
"""What the host of sd-lcm-tpu has room for in its description of a file (`sd/untool.py`)."""


def links(controlnet: Table, unet: Table) -> list[tuple[str, int, int]]:
    """Which ports of the two are the same bytes: the ControlNet's side, its place, the UNet's.

    As the host of sd-lcm-tpu aliases them on the device; that of sophon-demo copies them.
    """
    places = {slot.role: place for place, slot in enumerate(unet[0])}
    return [
        (side, place, places[slot.role])
        for side, slots in zip(("input", "output"), controlnet, strict=True)
        for place, slot in enumerate(slots)
        if slot.role in places
    ]
