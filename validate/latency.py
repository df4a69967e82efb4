"""What the compilers predict of a folder's artifacts, as a whole: nothing of it was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from converter.bundle import Bundle
from runtime.advice import sampling_options
from runtime.latency import PictureTime, picture_times
from runtime.sampling import PictureRequest
from targets.base import Artifact
from targets.manifest import Manifest
from validate.published import FIGURES, Published

SAME_MODEL = 0.01
"""Largest relative difference in parameters of two UNets that are the same model: what is added
for ControlNets or a guidance scale is less, what distillation leaves out more."""


@dataclass(frozen=True)
class Comparison:
    """A published figure, and what is predicted for the same work. Both in milliseconds."""

    published: Published
    target: str
    precision: str
    predicted_ms: float


@dataclass(frozen=True)
class Latency:
    """Every artifact that a compiler predicts, and the pictures they draw.

    `sampling` says how the pictures are drawn, `lacking`, one line each, for what no picture can
    be timed.
    """

    artifacts: Sequence[Artifact]
    sampling: str
    pictures: Sequence[PictureTime]
    lacking: Sequence[str]
    published: Sequence[Comparison]


def predicted_latency(
    manifest: Manifest, bundle: Bundle, request: PictureRequest | None = None
) -> Latency | None:
    """Gather what is predicted; None where no compiler predicts anything.

    `request` says how pictures are drawn, else the bundle does, else the defaults of `generate`.
    """
    predicted = [a for a in manifest.artifacts if a.predicted_ms is not None]
    if not predicted:
        return None
    if request is None:
        options, _ = sampling_options(bundle.sampling)
        request = PictureRequest("", **options)
    those = replace(manifest, artifacts=predicted)
    pictures, lacking = picture_times(those, bundle, request, lambda a: a.predicted_ms)
    return Latency(
        predicted, request.sampling_sentence, pictures, lacking, list(_compare(predicted, bundle))
    )


def _compare(artifacts: Sequence[Artifact], bundle: Bundle) -> Iterator[Comparison]:
    unet = bundle.components.get("unet")
    for artifact in artifacts:
        for figure in FIGURES:
            applies = (
                figure.component == artifact.component
                and figure.chip == artifact.chip
                and figure.size == artifact.size
                and figure.family == bundle.family
                and unet is not None
                and abs(unet.parameters / figure.unet_parameters - 1) < SAME_MODEL
            )
            if applies and artifact.predicted_ms is not None:
                runs = -(-figure.rows // artifact.batch)
                ms = runs * artifact.predicted_ms
                yield Comparison(figure, artifact.target, artifact.precision, ms)
