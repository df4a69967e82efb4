"""TVM as a target: one library a component and size, all sizes sharing one file of parameters.

A skeleton is the library: it takes weights as parameters, so it holds none and serves any
checkpoint of its architecture.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converter.cache import SKELETONS, Cache
from converter.cost import Cost
from converter.files import blake3_of, link_or_copy
from converter.progress import Event, Progress
from converter.weights import WeightSource
from passes import pipelines
from passes.linked_weights import read_graph
from targets.base import Artifact, CompileJob, Runner, Skeleton, Target, Workload
from targets.tvm.binding import DATA_FILE, INDEX_FILE, write_parameters
from targets.tvm.compilation import COMPILE, LIBRARY_FILE, compile_graph
from targets.tvm.parameters import Parameter
from targets.tvm.program import PROGRAM_FILE, Program
from targets.tvm.runner import TvmRunner
from targets.tvm.toolchain import Tvm

PIPELINE = "tvm 1"
"""Raise the number whenever the pipeline would make another graph of the same input."""


class TvmTarget(Target):
    """Libraries for the CPU of this kind of machine, float32."""

    name = "tvm"
    summary = "one library per component and size, parameters shared; the CPU of this machine"
    chip = None
    precisions = ("f32",)

    def __init__(self) -> None:
        self._toolchain = Tvm()

    def default_precision(self, component: str) -> str:
        """Everything in float32, as on any CPU."""
        del component
        return "f32"

    def check_ready(self) -> None:
        """Raise ToolchainError, with the command to run, when TVM is not installed."""
        self._toolchain.check_ready()

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Compile the job's graph, or find its library in the cache. Raises ToolchainError."""
        del weights
        stage = f"compile {job.label}"
        progress(Event(stage, 0.0))

        def build(folder: Path) -> None:
            self._toolchain.check_ready()
            graph = pipelines.tvm(dict(job.input_shapes)).run(read_graph(job.graph)).model
            compile_graph(self._toolchain, job, graph, _cpu(), folder, progress)

        made = Cache(SKELETONS).make(f"{job.label} for {self.name}", self._inputs(job), build)
        progress(Event(stage, 1.0, f"{job.label}: {made.why}"))
        return Skeleton(job, made.key, made.path, None, None, made.reused, made.why)

    def _inputs(self, job: CompileJob) -> dict[str, str]:
        """Everything that a skeleton is made from."""
        return {
            "graph": job.graph_sha256,
            "shapes": json.dumps(job.input_shapes),
            "precision": job.precision,
            "pipeline": PIPELINE,
            "toolchain": f"{self._toolchain.name} {self._toolchain.version}",
            "steps": hashlib.sha256(COMPILE.read_bytes()).hexdigest(),
            "compiled for": json.dumps(_cpu()),
        }

    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        """This graph at this size, compiled before for any weights."""
        del weights_key
        return Cache(SKELETONS).find(self._inputs(job))

    def predict(self, work: Workload) -> Cost:
        """See `targets.tvm.cost`."""
        raise NotImplementedError

    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        """Write one component's parameters, and beside them the library of each size."""
        component = skeletons[0].job.component
        home = folder / self.name / component
        programs = [Program.load(skeleton.path / PROGRAM_FILE) for skeleton in skeletons]
        parameters: dict[str, Parameter] = {p.name: p for one in programs for p in one.parameters}
        changed = write_parameters(parameters, weights, home, progress, f"bind {component}")
        return [self._place(s, weights, home, folder, changed) for s in skeletons]

    def _place(
        self, skeleton: Skeleton, weights: WeightSource, home: Path, folder: Path, changed: bool
    ) -> Artifact:
        job = skeleton.job
        library = home / f"{job.size or 'any'}.so"
        for made, path in (
            (LIBRARY_FILE, library),
            (PROGRAM_FILE, library.with_suffix(".json")),
        ):
            if not path.exists() or blake3_of(path) != blake3_of(skeleton.path / made):
                link_or_copy(skeleton.path / made, path)
                changed = True
        files = (library.with_suffix(".json"), home / DATA_FILE, home / INDEX_FILE)
        return Artifact(
            component=job.component,
            target=self.name,
            chip=self.chip,
            size=job.size,
            batch=job.batch,
            precision=job.precision,
            path=str(library.relative_to(folder)),
            files=tuple(str(file.relative_to(folder)) for file in files),
            blake3=blake3_of(library),
            key=skeleton.artifact_key(weights),
            weights_key=weights.key,
            reused=skeleton.reused and not changed,
            why=skeleton.why,
            how="bound",
            predicted_ms=None,
        )

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load the artifact's library. Raises ToolchainError."""
        self.check_ready()
        return TvmRunner(self._toolchain, folder / artifact.path)


def _cpu() -> dict[str, Any]:
    """TVM's description of the processors that a library is for: those like this machine's."""
    flags = Path("/proc/cpuinfo")
    known = flags.read_text() if flags.is_file() else ""
    if platform.machine() == "x86_64" and " avx2 " in known and " fma " in known:
        return {"kind": "llvm", "mcpu": "x86-64-v3"}
    return {"kind": "llvm"}
