"""MNN as a target: one .mnn a component for all sizes, its weights beside it.

A skeleton is converted once per architecture and precision with placeholders; any checkpoint's
weights are bound to it without MNN. Where a model cannot be bound, it is converted with its
weights.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converter.bundle import Bundle
from converter.cache import SKELETONS, Cache, Made
from converter.cost import Cost
from converter.errors import InputError
from converter.files import blake3_of
from converter.progress import Event, Progress
from converter.weights import WeightSource
from passes import pipelines
from passes.linked_weights import read_graph
from targets.base import (
    Artifact,
    CompileJob,
    Conformance,
    Runner,
    Skeleton,
    Target,
    Workload,
)
from targets.mnn.binding import bind
from targets.mnn.conformance import check_folder
from targets.mnn.conversion import conversion_key, convert_graph, unbound
from targets.mnn.cost import bind_cost, compile_cost
from targets.mnn.engine import PROFILE, TOKENIZER
from targets.mnn.model import WEIGHTS_SUFFIX
from targets.mnn.mtok import write_mtok
from targets.mnn.precisions import PRECISIONS
from targets.mnn.runner import MnnRunner, Session
from targets.mnn.toolchain import Mnn, runtime_python

PIPELINE = "mnn 2"
"""Raise the number whenever the pipeline would make another graph of the same input."""


class MnnTarget(Target):
    """Models for MNN, run on this machine by one of its back-ends."""

    precisions = tuple(PRECISIONS)
    chip = None
    serves_all_sizes = True

    def __init__(self, backend: str = "cpu") -> None:
        self._toolchain = Mnn()
        self._backend = backend
        self.name = "mnn" if backend == "cpu" else f"mnn-{backend}"
        where = "any CPU" if backend == "cpu" else f"a device of {backend} that MNN runs on"
        self.summary = f"one .mnn per component for all sizes, weights beside it; {where}"

    def default_precision(self, component: str) -> str:
        """Half the bytes of float32, at 57 dB and more."""
        del component
        return "f16"

    def check_ready(self) -> None:
        """Raise ToolchainError, with the command to run, when MNN is not installed."""
        self._toolchain.check_ready()
        runtime_python(self._toolchain)

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Convert the job's graph, or find its skeleton in the cache. Raises ToolchainError."""
        stage = f"compile {job.label}"
        progress(Event(stage, 0.0))
        made, weights_key = self._make(job, None, progress), None
        if reason := unbound(made.path):
            note = f"{job.label}: compiled with its weights, for others do not fit it: {reason}"
            progress(Event(stage, 0.0, note))
            made, weights_key = self._make(job, weights, progress), weights.key
        progress(Event(stage, 1.0, f"{job.label}: {made.why}"))
        return Skeleton(job, made.key, made.path, weights_key, None, made.reused, made.why)

    def _make(self, job: CompileJob, weights: WeightSource | None, progress: Progress) -> Made:
        """A cache entry: a skeleton, or with `weights` a model that serves those alone."""
        if weights is not None and weights.file is None:
            raise InputError(
                f"{job.label}: must be compiled with its weights, which lie in several files: "
                "export without --link"
            )
        file = None if weights is None else weights.file
        precision = PRECISIONS[job.precision]

        def build(folder: Path) -> None:
            self._toolchain.check_ready()
            pipeline = pipelines.mnn(_shapes(job), halves=precision.bits == 16)
            graph = pipeline.run(read_graph(job.graph)).model
            convert_graph(self._toolchain, job, precision, graph, file, folder, progress)

        inputs = self._inputs(job, None if weights is None else weights.key)
        return Cache(SKELETONS).make(f"{_label(job)} for MNN", inputs, build)

    def _inputs(self, job: CompileJob, weights_key: str | None) -> dict[str, str]:
        """Everything that a skeleton is made from; how it is run has no part in it."""
        return {
            "graph": job.graph_sha256,
            "shapes": json.dumps(_shapes(job)),
            **({} if weights_key is None else {"weights": weights_key}),
            "precision": " ".join(PRECISIONS[job.precision].options),
            "pipeline": PIPELINE,
            "toolchain": f"{self._toolchain.name} {self._toolchain.version}",
            "steps": conversion_key(),
        }

    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        """This graph and precision, converted before for any weights or else for these."""
        found = Cache(SKELETONS).find(self._inputs(job, None))
        if found is None or unbound(found) is None:
            return found
        return Cache(SKELETONS).find(self._inputs(job, weights_key))

    def predict(self, work: Workload) -> Cost:
        """See `targets.mnn.cost`."""
        return compile_cost(work)

    def predict_bind(self, works: Sequence[Workload]) -> Cost:
        """See `targets.mnn.cost`."""
        return bind_cost(works)

    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        """Write one component's model where its consumer opens it; one a size if so asked."""
        return [self._bind_one(skeleton, weights, folder, progress) for skeleton in skeletons]

    def _bind_one(
        self, skeleton: Skeleton, weights: WeightSource, folder: Path, progress: Progress
    ) -> Artifact:
        job = skeleton.job
        file = job.file or f"{self.name}/{job.component}"
        if job.static and job.size is not None:
            file = f"{file}_{job.size}"
        path = folder / f"{file}.mnn"
        changed = bind(skeleton, PRECISIONS[job.precision], weights, path, progress)
        return Artifact(
            component=job.component,
            target=self.name,
            chip=self.chip,
            size=job.size,
            batch=job.batch,
            precision=job.precision,
            path=f"{file}.mnn",
            files=(f"{file}.mnn{WEIGHTS_SUFFIX}",),
            blake3=blake3_of(path),
            key=f"{skeleton.artifact_key(weights)}:{job.precision}",
            weights_key=weights.key,
            reused=skeleton.reused and not changed,
            why=skeleton.why,
            how="bound" if skeleton.weights_key is None else "compiled with weights",
            predicted_ms=None,
        )

    def complete(
        self, bundle: Bundle, artifacts: Sequence[Artifact], folder: Path
    ) -> list[Artifact]:
        """Write the engine's tokenizer beside the text encoder that it feeds."""
        if bundle.profile != PROFILE:
            return list(artifacts)
        if any(artifact.component == "text_encoder" for artifact in artifacts):
            write_mtok(folder / TOKENIZER, bundle.words)
        return [
            replace(a, files=(*a.files, TOKENIZER)) if a.component == "text_encoder" else a
            for a in artifacts
        ]

    def conformance(
        self, bundle: Bundle, artifacts: Sequence[Artifact], folder: Path
    ) -> list[Conformance]:
        """See `targets.mnn.conformance`."""
        return check_folder(bundle, artifacts, folder)

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load the artifact's model. Raises ToolchainError."""
        self.check_ready()
        session = Session(
            runtime_python(self._toolchain, self._backend),
            dynamic=PRECISIONS[artifact.precision].dynamic,
            backend=self._backend,
        )
        return MnnRunner(self._toolchain, session, folder / artifact.path)

    def session(self, artifact: Artifact) -> str:
        """The file, loaded once and resized."""
        return f"{artifact.path} {PRECISIONS[artifact.precision].dynamic}"


def _shapes(job: CompileJob) -> dict[str, tuple[int, ...]] | None:
    """The shapes that a graph is made for; None: any."""
    return dict(job.input_shapes) if job.static else None


def _label(job: CompileJob) -> str:
    """What a skeleton is: in these words the cache tells what changed."""
    parts = (job.component, job.size if job.static else None, job.precision)
    return " ".join(str(part) for part in parts if part)
