"""Open what draws: the artifacts of one target at one size, or the fp32 reference."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from converter.bundle import Bundle
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.sizes import LATENT_CHANNELS, Size
from runtime.sampling import NEEDED, Network, Pipeline
from runtime.tokenizer import END_TOKEN
from targets.base import Artifact, Runner, Target
from targets.manifest import Manifest


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


@contextmanager
def open_artifacts(
    manifest: Manifest,
    bundle: Bundle,
    target: Target,
    size: Size,
    needed: Sequence[str] = NEEDED,
) -> Iterator[Pipeline]:
    """Open the `needed` artifacts of a target at one size; runners are closed on leaving."""
    check_draws(bundle, needed)
    artifacts = chosen_artifacts(manifest, target.name, size, needed)
    with ExitStack() as stack:
        networks = {
            component: Network(
                stack.enter_context(target.open(artifact, manifest.folder)),
                manifest.interfaces[component],
                artifact.batch,
            )
            for component, artifact in artifacts.items()
        }
        yield _pipeline(networks, bundle, size)


@contextmanager
def open_reference(
    bundle: Bundle,
    size: Size,
    opener: Callable[[Bundle, str], Runner],
    needed: Sequence[str] = NEEDED,
) -> Iterator[Pipeline]:
    """Open the fp32 reference of a bundle; it takes any size and batch."""
    check_draws(bundle, needed)
    with ExitStack() as stack:
        networks = {
            component: Network(
                stack.enter_context(opener(bundle, component)),
                bundle.components[component].interface,
                batch=None,
            )
            for component in needed
        }
        yield _pipeline(networks, bundle, size)


def _pipeline(networks: dict[str, Network], bundle: Bundle, size: Size) -> Pipeline:
    return Pipeline(
        networks,
        size,
        bundle.architecture["vae"]["scaling_factor"],
        bundle.prediction_type,
        bundle.zero_terminal_snr,
        padding=0 if bundle.family == "sd2" else END_TOKEN,
    )


def check_draws(bundle: Bundle, needed: Sequence[str] = NEEDED) -> None:
    """Raise InputError for a model that the sampling loop has nothing to feed with."""
    for name in needed:
        if is_controlnet(name) and name not in bundle.components:
            raise InputError(
                f"{bundle.folder}: no {name}, for which a hint is given: export with "
                "--controlnet FILE"
            )
    if "unet" not in bundle.components:
        return  # the caller names what is missing
    sample, _, _, *more = bundle.components["unet"].interface.inputs
    unknown = [port.name for port in more if "residual" not in port.name]
    if sample.shape[1] != LATENT_CHANNELS:
        unknown.append(f"{sample.shape[1]} channels of {sample.name}")
    if unknown:
        raise InputError(
            f"{bundle.folder}: pictures are drawn by SD1.x and SD2.x from a prompt alone, and this "
            f"{bundle.family} UNet also takes {', '.join(unknown)}: validate its components "
            "instead, without --prompt"
        )
