"""TVM as a target: one library a component and size, all sizes sharing one file of parameters.

A skeleton is the library: it takes weights as parameters, so it holds none and serves any
checkpoint of its architecture.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from converter.cache import SKELETONS, Cache
from converter.cost import Cost
from converter.errors import InputError
from converter.files import blake3_of, link_or_copy
from converter.progress import Event, Progress
from converter.weights import WeightSource
from passes import pipelines
from passes.cut_out_attention import CutOutAttentionPass
from passes.linked_weights import read_graph
from passes.pipelines import Pipeline
from targets.base import (
    Artifact,
    CompileJob,
    Placement,
    Runner,
    Skeleton,
    Target,
    Workload,
)
from targets.tvm.binding import DATA_FILE, INDEX_FILE, write_parameters
from targets.tvm.compilation import CLML_FILE, PLACEMENT_FILE, compile_graph, steps_key
from targets.tvm.cost import bind_cost, compile_cost, run_cost
from targets.tvm.host_operator import (
    MODEL,
    bind_part,
    convert_key,
    convert_part,
    weights_file,
)
from targets.tvm.kinds import KINDS
from targets.tvm.opencl_device import opencl_device
from targets.tvm.parameters import Parameter
from targets.tvm.program import PROGRAM_FILE, Program
from targets.tvm.runner import Loaded, TvmRunner
from targets.tvm.toolchain import Tvm

ANY_SIZE = "any"

PIPELINE = "tvm 3"
"""Raise the number whenever a pipeline would make another graph of the same input."""


class TvmTarget(Target):
    """Libraries that take their parameters from a file, for one kind of machine."""

    def __init__(self, kind: str) -> None:
        self._toolchain = Tvm()
        self._kind = KINDS[kind]
        self.name = kind
        self.summary = self._kind.summary
        self.chip = self._kind.chip
        self.precisions = self._kind.precisions
        self.unproven = self._kind.unproven

    def default_precision(self, component: str) -> str:
        """What the kind of machine computes in best."""
        del component
        return self.precisions[0]

    def check_ready(self) -> None:
        """Raise ToolchainError, with the command to run, when TVM is not installed."""
        self._toolchain.check_ready()

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Compile the job's graph, or find its libraries in the cache. Raises ToolchainError."""
        del weights
        stage = f"compile {job.label}"
        progress(Event(stage, 0.0))

        def build(folder: Path) -> None:
            self._toolchain.check_ready()
            cut = CutOutAttentionPass()
            graph = self._pipeline(job, cut).run(read_graph(job.graph)).model
            if cut.report.refusals and job.precision == "f16":
                raise InputError(
                    f"{job.label}: its attention passes what float16 holds, and cannot be handed "
                    f"to the host ({cut.report.refusals[0].reason}): compile with --precision "
                    f"{job.component}=f32"
                )
            host = None if cut.part is None else convert_part(cut.part, job, folder, progress)
            builds = self._kind.builds(job.precision)
            compile_graph(
                self._toolchain,
                self.name,
                job,
                graph,
                builds,
                folder,
                progress,
                library=self._kind.library,
                host=host,
            )

        made = Cache(SKELETONS).make(f"{job.label} for {self.name}", self._inputs(job), build)
        progress(Event(stage, 1.0, f"{job.label}: {made.why}"))
        return Skeleton(job, made.key, made.path, None, None, made.reused, made.why)

    def _pipeline(self, job: CompileJob, cut: CutOutAttentionPass) -> Pipeline:
        shapes = dict(job.input_shapes)
        if self.chip is None:
            return pipelines.tvm(shapes)
        half = job.precision == "f16"
        mine = (cut,) if self._has_part(job.component) else ()
        return pipelines.adreno(shapes, clml=self._kind.clml, half=half, cut=mine)

    def _has_part(self, component: str) -> bool:
        """Whether the host runs a component's attention, if it has one."""
        return self.chip is not None and component.startswith("vae")

    def _inputs(self, job: CompileJob) -> dict[str, str]:
        """Everything that a skeleton is made from."""
        builds = [build.request() for build in self._kind.builds(job.precision)]
        return {
            "graph": job.graph_sha256,
            "shapes": json.dumps(job.input_shapes),
            "precision": job.precision,
            "pipeline": PIPELINE,
            "toolchain": f"{self._toolchain.name} {self._toolchain.version}",
            "steps": steps_key(),
            "compiled for": json.dumps([self.name, builds]),
            **({"host": convert_key()} if self._has_part(job.component) else {}),
        }

    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        """This graph at this size, compiled before for any weights."""
        del weights_key
        return Cache(SKELETONS).find(self._inputs(job))

    def predict(self, work: Workload) -> Cost:
        """See `targets.tvm.cost`."""
        return compile_cost(self._where, work)

    def predict_bind(self, works: Sequence[Workload]) -> Cost:
        """See `targets.tvm.cost`."""
        return bind_cost(works)

    def predict_run(self, work: Workload) -> float | None:
        """See `targets.tvm.cost`."""
        return run_cost(self._where, work.operations)

    def run_seconds(self, artifact: Artifact, folder: Path) -> float | None:
        """The arithmetic of one run, at the rate of this machine's twin."""
        home = (folder / artifact.path).parent
        program = Program.load(home / f"{artifact.size or ANY_SIZE}.{PROGRAM_FILE}")
        return run_cost(self._where, program.operations)

    @property
    def _where(self) -> str:
        return "cpu" if self.chip is None else "phone"

    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        """Write one component's parameters, and beside them the libraries of each size."""
        component = skeletons[0].job.component
        home = folder / self.name / component
        programs = [Program.load(skeleton.path / PROGRAM_FILE) for skeleton in skeletons]
        every = (p for one in programs for p in (*one.parameters, *one.constants))
        parameters: dict[str, Parameter] = {p.name: p for p in every}
        changed = write_parameters(parameters, weights, home, progress, f"bind {component}")
        return [self._place(s, weights, folder, progress, changed=changed) for s in skeletons]

    def _place(
        self,
        skeleton: Skeleton,
        weights: WeightSource,
        folder: Path,
        progress: Progress,
        *,
        changed: bool,
    ) -> Artifact:
        job = skeleton.job
        home = folder / self.name / job.component
        names = [build.library for build in self._kind.builds(job.precision)]
        names += [PROGRAM_FILE, *([CLML_FILE] if self._kind.clml else [])]
        placed = [home / _name(job, name) for name in names]
        for name, path in zip(names, placed, strict=True):
            if not path.exists() or blake3_of(path) != blake3_of(skeleton.path / name):
                link_or_copy(skeleton.path / name, path)
                changed = True
        files = (*placed[1:], home / DATA_FILE, home / INDEX_FILE)
        if Program.load(skeleton.path / PROGRAM_FILE).host is not None:
            part = home / _name(job, MODEL)
            changed |= bind_part(skeleton, weights, part, progress)
            files += (part, weights_file(part))
        return Artifact(
            component=job.component,
            target=self.name,
            chip=self.chip,
            size=job.size,
            batch=job.batch,
            precision=job.precision,
            path=str(placed[0].relative_to(folder)),
            files=tuple(str(file.relative_to(folder)) for file in files),
            blake3=blake3_of(placed[0]),
            key=skeleton.artifact_key(weights),
            weights_key=weights.key,
            reused=skeleton.reused and not changed,
            why=skeleton.why,
            how="bound",
            predicted_ms=None,
            placement=self.placement(skeleton),
        )

    def placement(self, skeleton: Skeleton) -> Placement | None:
        """What of a skeleton runs where on a phone; None where it is for none."""
        path = skeleton.path / PLACEMENT_FILE
        return Placement.from_json(json.loads(path.read_text())) if path.is_file() else None

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load the artifact's library, or its twin for this machine. Raises ToolchainError."""
        self.check_ready()
        home = (folder / artifact.path).parent
        stem = str(artifact.size or ANY_SIZE)
        build = next(b for b in self._kind.builds(artifact.precision) if b.runner)
        loaded = Loaded(
            program=home / f"{stem}.{PROGRAM_FILE}",
            library=home / f"{stem}.{build.library}",
            graphs=home / f"{stem}.{CLML_FILE}" if self._kind.clml else None,
            device=str(build.runner),
            plugin=opencl_device(self._toolchain) if build.runner == "opencl" else None,
            part=home / f"{stem}.{MODEL}",
        )
        return TvmRunner(self._toolchain, loaded)


def _name(job: CompileJob, name: str) -> str:
    """The name of a skeleton's file among those of other sizes."""
    return f"{job.size or ANY_SIZE}.{name}"
