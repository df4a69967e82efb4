"""How long a picture takes: how often each component runs, times the milliseconds of one run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.bundle import Bundle
from converter.components import TEXT_ENCODERS
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.sizes import Size
from runtime.conditioning import is_told_guidance
from runtime.sampling import PictureRequest
from runtime.staging import chosen_artifacts, drawing_components, zero_negative
from targets.base import Artifact
from targets.manifest import Manifest

Milliseconds = Callable[[Artifact], float | None]
"""How long one run of an artifact takes; None where that is not known."""


@dataclass(frozen=True)
class Share:
    """What a component takes of a picture: its runs, and milliseconds of one."""

    component: str
    runs: int
    ms: float

    @property
    def total_ms(self) -> float:
        """All runs."""
        return self.runs * self.ms


@dataclass(frozen=True)
class PictureTime:
    """One picture of one target at one size, on the artifacts alone.

    Tokenizer, scheduler and the way of tensors between host and device are not counted.
    """

    target: str
    size: Size
    shares: tuple[Share, ...]

    @property
    def ms(self) -> float:
        """The whole picture, in milliseconds."""
        return sum(share.total_ms for share in self.shares)

    @property
    def words(self) -> str:
        """The whole picture in a user's unit: ``4.78 s``, ``310 ms``."""
        return f"{self.ms / 1000:.2f} s" if self.ms >= 1000 else f"{self.ms:.3g} ms"

    @property
    def controlnets(self) -> tuple[str, ...]:
        """The ControlNets that are followed."""
        return tuple(s.component for s in self.shares if is_controlnet(s.component))


def runs_per_picture(
    bundle: Bundle, artifacts: Mapping[str, Artifact], request: PictureRequest
) -> dict[str, int]:
    """How often each artifact runs for one picture.

    With guidance there are two rows a step, the negative prompt's and the prompt's: two runs at
    batch 1, one at any larger batch. A full LCM is told the guidance and has one row.
    """
    told = is_told_guidance(bundle.components["unet"].interface)
    rows = 2 if request.guided and not told else 1
    embedded = 1 if request.negative is None and zero_negative(bundle) else rows
    prompts = {**dict.fromkeys(TEXT_ENCODERS, embedded), "vae_decoder": 1}

    def runs(component: str, batch: int) -> int:
        steps = 1 if component in prompts else request.steps
        return steps * -(-prompts.get(component, rows) // batch)

    return {component: runs(component, a.batch) for component, a in artifacts.items()}


def picture_times(
    manifest: Manifest, bundle: Bundle, request: PictureRequest, ms: Milliseconds
) -> tuple[list[PictureTime], list[str]]:
    """Time a picture for every target and size, and once more with each ControlNet.

    Sizes come in the order of the manifest. The second value says, one line each, for which a
    component is missing; those of unknown milliseconds are left out.
    """
    times, lacking = [], []
    pairs = dict.fromkeys((a.target, a.size) for a in manifest.artifacts if a.size is not None)
    for target, size in pairs:
        for controlnets in _choices(bundle, request):
            needed = drawing_components(bundle, controlnets)
            try:
                artifacts = chosen_artifacts(manifest, target, size, needed)
            except InputError as e:
                lacking.append(str(e))
                continue
            runs = runs_per_picture(bundle, artifacts, request)
            once = {component: ms(artifact) for component, artifact in artifacts.items()}
            shares = tuple(Share(c, runs[c], t) for c, t in once.items() if t is not None)
            if len(shares) == len(once):
                times.append(PictureTime(target, size, shares))
    return times, lacking


def _choices(bundle: Bundle, request: PictureRequest) -> Iterator[Sequence[str]]:
    """The ControlNets of the request; without one, none and then each that the bundle has."""
    yield request.controlnets
    if not request.controlnets:
        yield from ((name,) for name in bundle.components if is_controlnet(name))
