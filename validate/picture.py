"""The picture level: what the artifacts of a target draw together, beside the reference's picture.

Both sides run the same sampling loop from the same noise with the same tokens, so the pictures
differ by the artifacts alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from converter.bundle import Bundle
from converter.cache import content_key
from converter.errors import InputError
from converter.progress import Event
from converter.sizes import Size
from runtime.latency import runs_per_picture
from runtime.sampling import PictureRequest, Pipeline
from runtime.staging import (
    chosen_artifacts,
    drawing_components,
    open_artifacts,
    open_reference,
)
from targets.base import Artifact, Target, ToolchainError
from targets.manifest import Manifest
from validate.base import PICTURE_LEVEL, Check, Result, Ruling, Verdict
from validate.judge import PictureJudge
from validate.metrics import measure
from validate.plan import FOLDER
from validate.references import OpenReference
from validate.run import NOT_RUN, Bench, too_slow
from validate.store import CaseStore

PORT = "picture"
VERSION = 1
"""Raise it when the sampling loop gives another picture than before."""


@dataclass(frozen=True)
class Sitting:
    """One picture to be drawn twice: by a target's artifacts at one size, and by the reference."""

    target: str
    size: Size
    artifacts: dict[str, Artifact]
    drawn: CaseStore
    reference: CaseStore

    @property
    def label(self) -> str:
        """In a user's words: ``picture 512x512``."""
        return f"picture {self.size}"

    @property
    def precision(self) -> str:
        """The precision of the artifacts, the one with the lowest floor where they differ."""
        used = {artifact.precision for artifact in self.artifacts.values()}
        return min(used, key=lambda p: PictureJudge().threshold(PORT, p).psnr_db)


def draw_pictures(
    manifest: Manifest,
    bundle: Bundle,
    request: PictureRequest,
    bench: Bench | None,
    opener: OpenReference,
) -> list[Result]:
    """Draw what is not saved, and judge. Without a bench nothing is drawn.

    Raises InputError when no target has everything that draws.
    """
    results = []
    for sitting in sittings(manifest, bundle, request):
        missing = NOT_RUN.missing
        if bench is not None:
            missing = _draw(sitting, manifest, bundle, request, bench, opener)
        results.append(_judge(sitting, request, missing))
    return results


def sittings(manifest: Manifest, bundle: Bundle, request: PictureRequest) -> list[Sitting]:
    """Every target and size of the folder that has all the components that draw."""
    pairs = dict.fromkeys((a.target, a.size) for a in manifest.artifacts if a.size is not None)
    needed = drawing_components(bundle, request.controlnets)
    found, lacking = [], None
    for target, size in pairs:
        try:
            artifacts = chosen_artifacts(manifest, target, size, needed)
        except InputError as e:
            lacking = e
        else:
            found.append(_sitting(manifest, bundle, request, target, size, artifacts))
    if not found:
        raise lacking or InputError(f"{manifest.folder}: nothing that could draw a picture")
    return found


def _sitting(
    manifest: Manifest,
    bundle: Bundle,
    request: PictureRequest,
    target: str,
    size: Size,
    artifacts: dict[str, Artifact],
) -> Sitting:
    made_from = {
        "request": request.identity(),
        "size": str(size),
        "prediction": [bundle.prediction_type, bundle.zero_terminal_snr],
        "weights": {name: bundle.components[name].weights_key for name in artifacts},
        "words": dict(bundle.words),
        "version": VERSION,
    }
    here = {**made_from, "artifacts": {name: a.computes for name, a in artifacts.items()}}
    folder = manifest.folder / FOLDER
    return Sitting(
        target,
        size,
        artifacts,
        drawn=CaseStore(folder / target / f"picture-{size}", content_key(here)),
        reference=CaseStore(folder / "reference" / f"picture-{size}", content_key(made_from)),
    )


def _case(request: PictureRequest) -> str:
    """Name the files of one request; different ones lie side by side."""
    return f"seed{request.seed}-{content_key(request.identity())[:8]}"


def _draw(
    sitting: Sitting,
    manifest: Manifest,
    bundle: Bundle,
    request: PictureRequest,
    bench: Bench,
    opener: OpenReference,
) -> Ruling:
    """Draw both pictures, unless they are saved; return the ruling on what was not drawn."""
    case = _case(request)
    target = bench.open_target(sitting.target)
    stage = f"draw {sitting.size} on {sitting.target}"

    def on_step(done: int) -> None:
        bench.progress(Event(stage, done / (request.steps + 1)))

    if not sitting.drawn.has(case):
        bench.progress(Event(stage, 0))
        hindrance = _hindrance(sitting, bundle, request, target, bench)
        if hindrance is not None:
            bench.progress(Event(stage, 1, f"{sitting.label}: {hindrance.sentence}"))
            return hindrance
        try:
            opened = open_artifacts(manifest, bundle, target, sitting.size, request.controlnets)
            with opened as pipeline:
                _save(sitting.drawn, case, pipeline, request, on_step)
        except ToolchainError as e:
            return Ruling(Verdict.FAIL, f"it could not be drawn: {e}")
        bench.progress(Event(stage, 1))
    if not sitting.reference.has(case):
        with open_reference(bundle, sitting.size, opener, request.controlnets) as pipeline:
            _save(sitting.reference, case, pipeline, request, lambda _: None)
    return NOT_RUN.missing


def _save(
    store: CaseStore,
    case: str,
    pipeline: Pipeline,
    request: PictureRequest,
    on_step: Callable[[int], None],
) -> None:
    started = time.monotonic()
    drawing = pipeline.draw(request, on_step=on_step)
    arrays = {PORT: drawing.picture[None], "latent": drawing.latents[-1]}
    store.save(case, arrays, time.monotonic() - started)


def _hindrance(
    sitting: Sitting, bundle: Bundle, request: PictureRequest, target: Target, bench: Bench
) -> Ruling | None:
    """Return the ruling on a picture whose emulator is missing or has no time for it."""
    try:
        target.check_ready()
    except ToolchainError as e:
        return Ruling(Verdict.INCOMPLETE, f"not drawn: {e}")
    if target.cannot_run is not None:
        return Ruling(Verdict.INCOMPLETE, f"not drawn: {target.cannot_run}")
    runs = runs_per_picture(bundle, sitting.artifacts, request)
    seconds = 0.0
    for component, artifact in sitting.artifacts.items():
        seconds += runs[component] * (target.run_seconds(artifact, bench.folder) or 0.0)
    if seconds <= bench.emulator_budget:
        return None
    return too_slow("not drawn", seconds, bench)


def _judge(sitting: Sitting, request: PictureRequest, missing: Ruling) -> Result:
    judge = PictureJudge()
    threshold = judge.threshold(PORT, sitting.precision)
    case = _case(request)
    check = Check(case, request.sentence, PORT, missing)
    if sitting.drawn.has(case) and sitting.reference.has(case):
        output, reference = (
            np.clip(store.load(case)[PORT], -1, 1)  # what a screen shows; NaN stays
            for store in (sitting.drawn, sitting.reference)
        )
        measurement = measure(output, reference)
        check = replace(
            check,
            ruling=judge.rule(measurement, threshold),
            measurement=measurement,
            seconds=sitting.drawn.seconds(case),
            saved=sitting.drawn.path(case),
            reference=sitting.reference.path(case),
        )
    chip = next(iter(sitting.artifacts.values())).chip
    return Result(
        component=PORT,
        target=sitting.target,
        chip=chip,
        size=sitting.size,
        batch=1,
        precision=sitting.precision,
        level=PICTURE_LEVEL,
        path=", ".join(dict.fromkeys(a.path for a in sitting.artifacts.values())),
        threshold=threshold,
        checks=(check,),
        note="",
    )
