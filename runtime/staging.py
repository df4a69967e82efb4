"""Open what draws: the artifacts of one target at one size, or the fp32 reference."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from converter.bundle import Bundle
from converter.errors import InputError
from converter.sizes import Size
from runtime.sampling import NEEDED, Network, Pipeline
from targets.base import Artifact, Runner, Target
from targets.manifest import Manifest


def chosen_artifacts(manifest: Manifest, target: str, size: Size) -> dict[str, Artifact]:
    """Return the artifacts that draw, by component; raises InputError naming what is missing."""
    mine = [a for a in manifest.artifacts if a.target == target]
    found = {a.component: a for a in mine if a.size in (None, size) and a.component in NEEDED}
    missing = [component for component in NEEDED if component not in found]
    if missing:
        sizes = ", ".join(dict.fromkeys(str(a.size) for a in mine if a.size is not None))
        raise InputError(
            f"{manifest.folder}: no {' and no '.join(missing)} for {target} at {size} "
            f"({target} has {sizes or 'nothing'} here): compile that size, or name another"
        )
    return found


@contextmanager
def open_artifacts(
    manifest: Manifest, bundle: Bundle, target: Target, size: Size
) -> Iterator[Pipeline]:
    """Open the artifacts of a target at one size; runners are closed on leaving."""
    artifacts = chosen_artifacts(manifest, target.name, size)
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
    bundle: Bundle, size: Size, opener: Callable[[Bundle, str], Runner]
) -> Iterator[Pipeline]:
    """Open the fp32 reference of a bundle; it takes any size and batch."""
    with ExitStack() as stack:
        networks = {
            component: Network(
                stack.enter_context(opener(bundle, component)),
                bundle.components[component].interface,
                batch=None,
            )
            for component in NEEDED
        }
        yield _pipeline(networks, bundle, size)


def _pipeline(networks: dict[str, Network], bundle: Bundle, size: Size) -> Pipeline:
    vae = bundle.architecture["vae"]
    return Pipeline(networks, size, vae["scaling_factor"], bundle.prediction_type)
