"""ONNX Runtime: the embedded default. A skeleton is a specialised graph; binding is a file name.

Nothing is compiled ahead and no weight byte is copied: the artifact's graph names the same weight
file as the bundle's, hard-linked beside it because ONNX Runtime reads external data from inside
the graph's folder only. (The `onnx` package's own loader refuses a file with two names, taking it
for an attack; it reads such graphs with `load_external_data=False`, or from a copy.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from converter.cache import SKELETONS, Cache
from converter.cost import Cost
from converter.errors import InputError
from converter.files import blake3_of, link_or_copy
from converter.progress import Event, Progress
from converter.weights import Array, WeightSource
from passes import pipelines
from passes.linked_weights import read_graph
from targets.base import (
    Artifact,
    CompileJob,
    LayerRunner,
    Runner,
    Skeleton,
    Target,
    ToolchainError,
    Workload,
)
from targets.onnx_values import OnnxValues

PIPELINE = "onnxruntime 2"
"""Raise the number whenever the pipeline would make another graph of the same input."""

GRAPH = "graph.onnx"

MEMORY = (130e6, 45e3)
"""Bytes at no tensors, and per tensor, while a graph is specialised. Measured: 36 tensors 0.136 GB,
686 (the UNet of SD1.5, any width) 0.16 to 0.18 GB, 1,680 (SDXL's) 0.22 GB."""
SECONDS = (0.05, 1.2e-3)
"""Likewise, start-up of the program excluded. Measured on two cores with 1.2 s of start-up: 36
tensors 1.6 s, 686 2.2 to 2.7 s, 1,680 3.7 s; the miniature's four components at two sizes 4.2 s."""
GRAPH_BYTES = (15e3, 500)
"""Likewise, of the specialised graph. Measured: 106 tensors 50 KB, 686 345 to 349 KB."""


class OnnxRuntimeTarget(Target):
    """Static ONNX graphs, float32, for the CPU (and any machine that ONNX Runtime knows)."""

    name = "onnxruntime"
    summary = "one static ONNX graph per component and size, weights shared; any CPU"
    chip = None
    precisions: tuple[str, ...] = ("f32",)
    needs_weights_file = True
    links = True

    def default_precision(self, component: str) -> str:
        """Everything in float32: on a CPU half precision is slower and takes more memory."""
        del component
        return "f32"

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Specialise the graph to the job's shapes."""
        del weights
        stage = f"compile {job.label}"
        progress(Event(stage, 0.0))

        def build(folder: Path) -> None:
            result = pipelines.onnxruntime(dict(job.input_shapes)).run(read_graph(job.graph))
            ir.save(result.model, folder / GRAPH)

        made = Cache(SKELETONS).make(f"{self.name} {job.label}", _inputs(job), build)
        progress(Event(stage, 1.0, f"{job.label}: {made.why}"))
        return Skeleton(job, made.key, made.path, None, None, made.reused, made.why)

    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        """Link graphs and weights into `folder/onnxruntime/<component>/`."""
        del progress  # it takes no time
        if weights.file is None:
            raise InputError("ONNX Runtime artifacts need weights that lie in a file")
        return [self._bind_one(skeleton, weights, weights.file, folder) for skeleton in skeletons]

    def _bind_one(
        self, skeleton: Skeleton, weights: WeightSource, file: Path, folder: Path
    ) -> Artifact:
        job = skeleton.job
        name = f"{job.size}.onnx" if job.size is not None else "model.onnx"
        graph = folder / self.name / job.component / name
        linked = graph.parent / file.name
        changed = not graph.exists() or blake3_of(graph) != blake3_of(skeleton.path / GRAPH)
        if changed:
            link_or_copy(skeleton.path / GRAPH, graph)
        if not linked.exists() or not linked.samefile(file):
            changed = True
            link_or_copy(file, linked)
        return Artifact(
            component=job.component,
            target=self.name,
            chip=self.chip,
            size=job.size,
            batch=job.batch,
            precision=job.precision,
            path=str(graph.relative_to(folder)),
            files=(str(linked.relative_to(folder)),),
            blake3=blake3_of(graph),
            key=skeleton.artifact_key(weights),
            weights_key=weights.key,
            reused=skeleton.reused and not changed,
            why=skeleton.why,
            how="bound",
            predicted_ms=None,
        )

    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        """This graph specialised to these shapes, if that was done before."""
        del weights_key
        return Cache(SKELETONS).find(_inputs(job))

    def predict(self, work: Workload) -> Cost:
        """Only the size of the graph matters: no weight is read."""
        return Cost(
            memory=_linear(MEMORY, work.tensors),
            cached=_linear(GRAPH_BYTES, work.tensors),
            seconds=SECONDS[0] + SECONDS[1] * work.tensors,
        )

    def predict_bind(self, works: Sequence[Workload]) -> Cost:
        """Two links; the weights, which all sizes share, lie in the bundle."""
        tensors = works[0].tensors
        return Cost(memory=_linear(MEMORY, 0), written=len(works) * _linear(GRAPH_BYTES, tensors))

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load the graph into a session on the CPU."""
        return OnnxRuntimeRunner(folder / artifact.path)

    def open_layers(
        self,
        job: CompileJob,
        artifact: Artifact,
        folder: Path,
        weights: WeightSource,
        progress: Progress,
    ) -> LayerRunner:
        """The artifact's own graph, optimised as when it is run."""
        del job, weights, progress
        return OnnxValues(folder / artifact.path, as_written=False)


class OnnxRuntimeRunner(Runner):
    """A session on the CPU over a graph whose weights stay memory-mapped."""

    def __init__(self, graph: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # The default level reorders all weights into new memory: ten times the load time and
        # four times the memory, for no gain in speed on these models.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._graph = graph
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # its exceptions share no base class of their own
            raise ToolchainError(f"{graph}: ONNX Runtime cannot load it: {e}") from e
        self._outputs = [output.name for output in self._session.get_outputs()]

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; see `Runner.infer`."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as e:
            raise ToolchainError(f"{self._graph}: ONNX Runtime cannot run it: {e}") from e
        return dict(zip(self._outputs, values, strict=True))


def _inputs(job: CompileJob) -> dict[str, str]:
    """Everything that a skeleton is made from."""
    return {
        "graph": job.graph_sha256,
        "shapes": str(job.input_shapes),
        "pipeline": PIPELINE,
        "onnxruntime": _version(),
    }


def _linear(law: tuple[float, float], tensors: int) -> int:
    fixed, each = law
    return round(fixed + each * tensors)


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("onnxruntime")
