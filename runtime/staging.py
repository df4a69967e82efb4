"""Open what draws: the artifacts of one target at one size, or the fp32 reference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from converter.bundle import Bundle
from converter.components import ADDED, POOLED, TIME, text_encoders
from converter.errors import InputError
from converter.families.sd2 import SD2
from converter.families.sdxl import SDXL
from converter.families.sdxl_refiner import SDXL_REFINER
from converter.families.variants import BY_INPUTS
from converter.profiles import get_profile
from converter.sizes import LATENT_CHANNELS, Size
from runtime.conditioning import CONTEXT, GUIDANCE, SIZES, PromptRules
from runtime.network import Network
from runtime.sampling import Pipeline
from targets.base import Artifact, Runner, Target
from targets.manifest import Manifest

OpenReference = Callable[[Bundle, str], Runner]
"""Opens the fp32 reference of one component: `targets.torch_reference`, or a stand-in."""


def drawing_components(bundle: Bundle, controlnets: Sequence[str] = ()) -> tuple[str, ...]:
    """The components of a bundle that draw a picture, with these ControlNets."""
    return (*text_encoders(bundle.family), "unet", "vae_decoder", *controlnets)


def chosen_artifacts(
    manifest: Manifest, target: str, size: Size, needed: Sequence[str]
) -> dict[str, Artifact]:
    """Return the artifacts of `needed` components; raises InputError naming what is missing."""
    mine = [a for a in manifest.artifacts if a.target == target]
    found = {a.component: a for a in mine if a.size in (None, size) and a.component in needed}
    missing = [component for component in needed if component not in found]
    if missing:
        sizes = ", ".join(dict.fromkeys(str(a.size) for a in mine if a.size is not None))
        raise InputError(
            f"{manifest.folder}: no {' and no '.join(missing)} for {target} at {size} "
            f"({target} has {sizes or 'nothing'} here): compile that size, or name another"
        )
    return found


def artifact_network(manifest: Manifest, target: Target, artifact: Artifact) -> Network:
    """Open one artifact; its runner is the caller's to close."""
    interface = manifest.interfaces[artifact.component]
    return Network(target.open(artifact, manifest.folder), interface, artifact.batch)


def reference_network(
    bundle: Bundle, component: str, opener: OpenReference, batch: int | None = None
) -> Network:
    """Open the reference of one component; it takes any size, and any batch but for `batch`."""
    interface = bundle.components[component].interface
    rows = batch if batch is None else get_profile(bundle.profile).batch_of(component, batch)
    return Network(opener(bundle, component), interface, rows)


@contextmanager
def open_networks(
    bundle: Bundle, size: Size, openers: Mapping[str, Callable[[], Network]]
) -> Iterator[Pipeline]:
    """Open these components, whoever plays them; runners are closed on leaving."""
    networks = {}
    with ExitStack() as stack:
        for component, opener in openers.items():
            networks[component] = opener()
            stack.enter_context(networks[component].runner)
        yield pipeline_of(networks, bundle, size)


@contextmanager
def open_artifacts(
    manifest: Manifest,
    bundle: Bundle,
    target: Target,
    size: Size,
    controlnets: Sequence[str] = (),
) -> Iterator[Pipeline]:
    """Open a target's artifacts that draw at one size; runners are closed on leaving."""
    check_draws(bundle, controlnets)
    needed = drawing_components(bundle, controlnets)
    artifacts = chosen_artifacts(manifest, target.name, size, needed)
    openers = {c: partial(artifact_network, manifest, target, a) for c, a in artifacts.items()}
    with open_networks(bundle, size, openers) as pipeline:
        yield pipeline


@contextmanager
def open_reference(
    bundle: Bundle,
    size: Size,
    opener: OpenReference,
    controlnets: Sequence[str] = (),
    batch: int | None = None,
) -> Iterator[Pipeline]:
    """Open the fp32 reference of a bundle; it takes any size and batch.

    With `batch` it is run in parts of as many rows as artifacts compiled for that batch.
    """
    check_draws(bundle, controlnets)
    needed = drawing_components(bundle, controlnets)
    openers = {c: partial(reference_network, bundle, c, opener, batch) for c in needed}
    with open_networks(bundle, size, openers) as pipeline:
        yield pipeline


def pipeline_of(networks: Mapping[str, Network], bundle: Bundle, size: Size) -> Pipeline:
    """A pipeline over networks of a bundle, or over those of a stage."""
    own = get_profile(bundle.profile).sampling
    return Pipeline(
        networks,
        size,
        bundle.architecture["vae"]["scaling_factor"],
        bundle.prediction_type,
        bundle.zero_terminal_snr,
        PromptRules(padding_of(bundle), bundle.words, zero_negative(bundle)),
        "numpy" if own is None else own.noise,
    )


def zero_negative(bundle: Bundle) -> bool:
    """Whether no negative prompt means zeros: no text encoder runs for it."""
    return bundle.family == SDXL.name


def padding_of(bundle: Bundle) -> dict[str, int]:
    """OpenCLIP's text encoders were trained with zeros behind a prompt, CLIP's with its end.

    A consumer that does otherwise goes before what is right.
    """
    trained = {"text_encoder_2": 0, **({"text_encoder": 0} if bundle.family == SD2.name else {})}
    return {**trained, **get_profile(bundle.profile).padding}


FED = ("sample", "timestep", TIME, CONTEXT, POOLED, SIZES, ADDED, GUIDANCE)
"""The inputs of a UNet that the sampling loop has something for, besides ControlNets' residuals."""

NOT_DRAWN = {
    "inpaint": "an inpaint UNet fills in the masked part of a picture",
    "instruct-pix2pix": "an instruct-pix2pix UNet edits a picture",
    "refiner": "the SDXL refiner goes over a picture that SDXL has begun",
}
"""Variant of a UNet -> why a prompt is not enough for it."""


def check_draws(bundle: Bundle, controlnets: Sequence[str] = ()) -> None:
    """Raise InputError for a model that the sampling loop has nothing to feed with."""
    for name in controlnets:
        if name not in bundle.components:
            raise InputError(
                f"{bundle.folder}: no {name}, for which a hint is given: export with "
                "--controlnet FILE"
            )
    if "unet" not in bundle.components:
        return  # the caller names what is missing
    advice = "draw with another bundle, and validate the components of this one without --prompt"
    inputs = bundle.components["unet"].interface.inputs
    channels = inputs[0].shape[1]
    assert isinstance(channels, int)
    variant = "refiner" if bundle.family == SDXL_REFINER.name else BY_INPUTS.get(channels)
    if variant is not None:
        raise InputError(
            f"{bundle.folder}: {NOT_DRAWN[variant]}, and here pictures are drawn from a prompt "
            f"alone: {advice}"
        )
    unknown = [p.name for p in inputs if p.name not in FED and "residual" not in p.name]
    if channels != LATENT_CHANNELS:
        unknown.append(f"{channels} channels of {inputs[0].name}")
    if unknown:
        raise InputError(
            f"{bundle.folder}: pictures are drawn from a prompt alone, and this {bundle.family} "
            f"UNet also takes {', '.join(unknown)}: {advice}"
        )
