"""The choices that can work for a model on this machine; the others are not offered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from converter.architecture import Architecture
from converter.components import available
from converter.errors import InputError
from converter.families.registry import FAMILIES
from converter.interface_profile import InterfaceProfile
from converter.profiles import PROFILES, get_profile
from converter.sizes import Size
from targets.base import Target, ToolchainError
from targets.compile import default_precision
from targets.registry import TARGETS, get_target

FIELD = ("512x512", "640x960", "960x640", "704x896", "896x704", "576x1024", "1024x576")
"""What SD1.5 is deployed at."""

BUCKETS = (
    "1024x1024", "1152x896", "896x1152", "1216x832", "832x1216", "1344x768", "768x1344",
    "1536x640", "640x1536",
)  # fmt: skip
"""Those of the sizes that SDXL was trained on which its users know (arXiv 2307.01952, app. I)."""

SIZES: Mapping[str, Sequence[str]] = {
    "sd15": (*FIELD, "512x768", "768x512", "768x768"),
    "sd2": ("768x768", "512x512", "640x960", "960x640", "576x1024", "1024x576"),
    "sdxl": BUCKETS,
    "sdxl-refiner": BUCKETS,
}
"""By family; the first is the usual one."""

SMALL = ("64x64", "128x64", "64x128", "128x128")
"""For models that are no larger than the miniature: what those were trained on."""
SMALL_WIDTH = 128
"""Channels at the entrance of a UNet up to which a model is small; Stable Diffusion has 320."""


@dataclass(frozen=True)
class TargetState:
    """A target, and what it still needs on this machine; None when it is ready."""

    target: Target
    needs: str | None


def target_states() -> list[TargetState]:
    """Every target, asked now: a toolchain may have been installed since the page was opened."""
    states = []
    for target in map(get_target, TARGETS):
        try:
            target.check_ready()
            states.append(TargetState(target, None))
        except ToolchainError as e:
            states.append(TargetState(target, str(e)))
    return states


def fitting_profiles(architecture: Architecture) -> list[InterfaceProfile]:
    """The profiles whose consumers can run this model."""
    fitting = []
    for profile in PROFILES.values():
        try:
            profile.check(architecture)
        except InputError:
            continue
        fitting.append(profile)
    return fitting


def suiting_profile(fitting: Sequence[str], targets: Iterable[str]) -> str:
    """The profile that hosts of these targets expect, else the one that any pipeline binds."""
    expected = (get_target(name).expected_profile for name in targets)
    usual = [name for name in expected if name is not None and name in fitting]
    anybody = [n for n in fitting if not get_profile(n).deployments]
    return next(iter([*usual, *anybody, *fitting]), "")


def offered_sizes(architecture: Architecture, profile: InterfaceProfile) -> list[str]:
    """The usual sizes that the model takes behind the profile's ports; the usual one first."""
    unet = architecture.unet
    small = unet is not None and unet.block_channels[0] <= SMALL_WIDTH
    usual = SMALL if small else SIZES.get(architecture.family, FIELD)
    deployment = profile.deployment(architecture)
    first = [] if deployment is None or small else [str(deployment.size)]
    return [s for s in dict.fromkeys([*first, *usual]) if _takes(architecture, profile, s)]


def _takes(architecture: Architecture, profile: InterfaceProfile, size: str) -> bool:
    try:
        profile.check_sizes(architecture, [Size.parse(size)])
    except InputError:
        return False
    return True


def components_of(architecture: Architecture) -> list[str]:
    """What can be made of a model."""
    return list(available(architecture)) if architecture.family in FAMILIES else []


@dataclass(frozen=True)
class PrecisionChoice:
    """What a component of a target can be compiled in; `usual` when nothing is said."""

    target: str
    component: str
    usual: str
    others: tuple[str, ...]


def precision_choices(
    targets: Sequence[str], components: Sequence[str], profile: InterfaceProfile
) -> list[PrecisionChoice]:
    """For every target that has a choice, its components."""
    choices = []
    for target in map(get_target, targets):
        if len(target.precisions) < 2:
            continue
        for component in components:
            usual = default_precision(profile, target, component)
            others = tuple(p for p in target.precisions if p != usual)
            choices.append(PrecisionChoice(target.name, component, usual, others))
    return choices
