"""The cases of every component: which prompt, picture and timestep, before there is a size."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from converter.architecture import CONTROLNET
from converter.errors import InputError
from converter.families.controlnet import kind_of
from converter.interface import Interface

RECIPE_VERSION = 2
"""Raise it whenever the same scene gives other inputs than before: saved outputs then expire."""


@dataclass(frozen=True)
class Scene:
    """What a case shows, before it has a size. Numbers choose a prompt and a drawn picture."""

    name: str
    about: str
    prompt: int = 0
    picture: int = 0
    timestep: float = 0
    residuals: bool = False


_TEXT = (
    Scene("long-prompt", "a prompt that fills all 77 positions", prompt=1),
    Scene("short-prompt", "a prompt of 11 tokens and padding", prompt=0),
    Scene("empty-prompt", "the unconditional prompt: padding only", prompt=2),
)
_UNET = (
    Scene("t981", "almost pure noise, timestep 981", prompt=0, picture=0, timestep=981),
    Scene("t501", "half-way, timestep 501", prompt=1, picture=1, timestep=501),
    # As Euler's schedules have it: who makes an integer of it shows.
    Scene("t20.5", "almost clean, timestep 20.5", prompt=2, picture=2, timestep=20.5),
)
# First, because it proves the most: where an emulator has time for one case, it is this one.
_UNET_RESIDUALS = (
    Scene(
        "t501-residuals",
        "half-way, timestep 501, another residual on every ControlNet port",
        prompt=1,
        picture=1,
        timestep=501,
        residuals=True,
    ),
    *_UNET,
)
_VAE = (
    Scene("shapes", "flat shapes in strong colours", picture=1),
    Scene("landscape", "smooth gradients", picture=0),
    Scene("texture", "waves and grain: high frequencies", picture=2),
)


_SCENES = {
    "text_encoder": _TEXT,
    "text_encoder_2": _TEXT,
    CONTROLNET: _UNET,
    "unet": _UNET,
    "vae_encoder": _VAE,
    "vae_decoder": _VAE,
}


def is_residual(port: str) -> bool:
    """Whether a ControlNet adds to the UNet through this port."""
    return "_block_additional_residual" in port


def scenes(component: str, interface: Interface) -> tuple[Scene, ...]:
    """The cases of a component, the most telling first; raises InputError for an unknown one."""
    kind = kind_of(component)
    if kind not in _SCENES:
        raise InputError(
            f"no test inputs for component {component!r}: there are some for {', '.join(_SCENES)}"
        )
    if component == "unet" and any(is_residual(port.name) for port in interface.inputs):
        return _UNET_RESIDUALS
    return _SCENES[kind]


def stand_ins(
    component: str, available: Collection[str], text_encoders: Sequence[str] = ("text_encoder",)
) -> str:
    """What is noise in these cases because the bundle lacks a component; empty when nothing is.

    `text_encoders` are those whose embeddings the UNet takes.
    """
    denoiser = {**dict.fromkeys(text_encoders, "text embeddings"), "vae_encoder": "clean latents"}
    needed = {
        CONTROLNET: denoiser,
        "unet": denoiser,
        "vae_decoder": {"vae_encoder": "latents"},
    }.get(kind_of(component), {})
    return "; ".join(
        f"{what} are unit-variance noise: the bundle has no {lacking}"
        for lacking, what in needed.items()
        if lacking not in available
    )
