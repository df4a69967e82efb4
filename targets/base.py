"""The contract of a back-end: compile a graph to a skeleton, bind weights to it, open a runner.

Adding a target: one file (or folder) with a `Target`, one line in `targets/registry.py`, one
test. Nothing here imports a vendor's package.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from converter.bundle import Bundle
from converter.cost import Cost
from converter.progress import Progress
from converter.sizes import Size
from converter.weights import Array, WeightSource
from targets.calibration import CalibrationData


class ToolchainError(RuntimeError):
    """A vendor's toolchain is missing or failed: one line, what to do next (exit code 3)."""


EFFORTS = ("normal", "high")
"""How long a compiler may search: high takes minutes more for a program that is a little faster."""


@dataclass(frozen=True)
class QuantizeTable:
    """A user's file that gives some operations a precision of their own, in the compiler's format.

    `content` is the hash of what it holds.
    """

    path: Path
    content: str


@dataclass(frozen=True)
class CompileJob:
    """One component at one size, batch and precision: the unit of compilation.

    `graph` is the bundle's dynamic ONNX graph, `graph_sha256` its content, and `input_shapes` what
    its inputs are to be specialised to, in the consumer's order. `size` is None for a component
    without a picture size. `effort` is one of `EFFORTS`. `file` is where the consumer opens the
    artifact, below the folder of artifacts and without the ending; None: anywhere. With `static` it
    serves this size alone, else whatever sizes the target can. `calibration` holds the inputs that
    INT8 takes its ranges from.
    """

    component: str
    graph: Path
    graph_sha256: str
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...]
    size: Size | None
    batch: int
    precision: str
    effort: str = "normal"
    file: str | None = None
    static: bool = True
    calibration: CalibrationData | None = None
    quantize_table: QuantizeTable | None = None

    @property
    def table_content(self) -> str | None:
        """Content hash of the user's own table of precisions, if there is one."""
        return None if self.quantize_table is None else self.quantize_table.content

    @property
    def label(self) -> str:
        """The job in a user's words: ``unet 512x512 f16``."""
        return " ".join(str(part) for part in (self.component, self.size, self.precision) if part)


@dataclass(frozen=True)
class Workload:
    """A job as far as a checkpoint's header tells, before there is a graph.

    `job.graph` need not exist and `job.graph_sha256` may be empty, as may `weights_key`: then
    nothing can be known to be in the cache. `weights_bytes` is the size of the weights file
    (float32), `tensors` how many it holds, `largest` the bytes of the largest, `operations` the
    additions and multiplications of one run. Of the `parameters`, so many are in `matrices` that
    activations are multiplied by.
    """

    job: CompileJob
    weights_key: str
    parameters: int
    weights_bytes: int
    tensors: int
    largest: int
    operations: int
    matrices: int = 0


@dataclass(frozen=True)
class EngineTimes:
    """How a chip's engines share a run, in milliseconds that add up to it.

    `compute_ms`: it computes and no data moves (DMA rests); `dma_ms`: data moves and nothing
    computes; `both_ms`: both at once; `idle_ms`: neither.
    """

    compute_ms: float
    both_ms: float
    dma_ms: float
    idle_ms: float


@dataclass(frozen=True)
class LayerTime:
    """What the layers of one kind take of a run, in milliseconds.

    `compute_ms`: they compute, whether or not data moves meanwhile; `dma_ms`: their data moves and
    nothing computes. Over all kinds, and with the idle time, these add up to the run.
    """

    kind: str
    compute_ms: float
    dma_ms: float

    @property
    def ms(self) -> float:
        """Both together."""
        return self.compute_ms + self.dma_ms


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on the device: weights, instructions, and tensors while it runs."""

    weights: int
    instructions: int
    runtime: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.instructions + self.runtime


@dataclass(frozen=True)
class Estimate:
    """Where a compiler says that the time of a run goes, and what the run needs; not measured.

    `loaded` and `stored` are bytes from and to device memory in one run, `operations` the
    arithmetic operations. `layers` has the longest first.
    """

    engines: EngineTimes
    layers: tuple[LayerTime, ...]
    operations: int
    loaded: int
    stored: int
    memory: DeviceMemory

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Estimate":
        """Read what `dataclasses.asdict` gives."""
        return cls(
            **{
                **data,
                "engines": EngineTimes(**data["engines"]),
                "layers": tuple(LayerTime(**layer) for layer in data["layers"]),
                "memory": DeviceMemory(**data["memory"]),
            }
        )


@dataclass(frozen=True)
class PlacedOperators:
    """Operators of one kind that run at one place for one reason.

    `operations` are the additions and multiplications of one run, `reason` why they are not where
    most of the work is done; empty for those that are.
    """

    operator: str
    where: str
    reason: str
    count: int
    operations: int


@dataclass(frozen=True)
class Placement:
    """Which part of a network a vendor's library runs, in how many graphs, and why no more.

    `structures` counts graphs that differ in more than their weights, `kernels` the calls in them;
    `handed_over` and `handed_back` are the bytes that go into the graphs and come out in one run.
    `why`: why a library that has no graphs runs what it runs.
    """

    library: str
    rows: tuple[PlacedOperators, ...]
    graphs: int
    structures: int
    kernels: int
    handed_over: int
    handed_back: int
    why: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Placement":
        """Read what `dataclasses.asdict` gives."""
        return cls(**{**data, "rows": tuple(PlacedOperators(**row) for row in data["rows"])})

    @property
    def operations(self) -> int:
        """Of one run."""
        return sum(row.operations for row in self.rows)

    @property
    def share(self) -> float:
        """The part of the operations that the library runs."""
        mine = sum(row.operations for row in self.rows if row.where == self.library)
        return mine / max(1, self.operations)

    @property
    def sentence(self) -> str:
        """In words: ``100.0 % of 0.20 GFLOP on CLML in 132 graphs``."""
        share = f"{self.share:.1%} of {self.operations / 1e9:.2f} GFLOP on {self.library}"
        if self.why:
            return f"{share}: {self.why}"
        return (
            f"{share} in "
            f"{self.graphs} graphs ({self.structures} of them different, {self.kernels} kernels); "
            f"{self.handed_over / 1e6:.1f} MB go in and {self.handed_back / 1e6:.1f} MB come out"
        )

    @property
    def taken(self) -> list[PlacedOperators]:
        """What the library runs, most arithmetic first."""
        return _by_work(row for row in self.rows if row.where == self.library)

    @property
    def staying(self) -> list[PlacedOperators]:
        """What it does not run."""
        return _by_work(row for row in self.rows if row.where != self.library)


def _by_work(rows: Iterable[PlacedOperators]) -> list[PlacedOperators]:
    return sorted(rows, key=lambda row: (-row.operations, -row.count, row.operator))


@dataclass(frozen=True)
class Skeleton:
    """What a compiler made of a job: instructions and memory map, in one cache entry.

    `weights_key` is None when no weight value went into it; otherwise it was compiled with
    those weights and serves no others. `predicted_ms` is the compiler's own estimate of one run
    on the device, in milliseconds, and `estimate` where they go; None where it says nothing.
    """

    job: CompileJob
    key: str
    path: Path
    weights_key: str | None
    predicted_ms: float | None
    reused: bool
    why: str
    estimate: Estimate | None = None

    def artifact_key(self, weights: WeightSource) -> str:
        """Content hash of what an artifact of this skeleton and these weights is made from."""
        return f"{self.key}:{weights.key}"


@dataclass(frozen=True)
class Artifact:
    """One line of the manifest: one component at one size, ready to run.

    `path` and `files` (everything needed beside it) are relative to the artifacts' folder.
    `how` is "bound" or "compiled with weights"; `key` is the content hash of what it was made
    from, `weights_key` that of its weights, `blake3` that of the file at `path`; `predicted_ms`
    and `estimate` are the skeleton's.
    """

    component: str
    target: str
    chip: str | None
    size: Size | None
    batch: int
    precision: str
    path: str
    files: tuple[str, ...]
    blake3: str
    key: str
    weights_key: str
    reused: bool
    why: str
    how: str
    predicted_ms: float | None
    estimate: Estimate | None = None
    quantize_table: str | None = None
    """Content hash of a user's own table of precisions."""
    placement: Placement | None = None
    content: str | None = None
    """Hash of all that decides what it computes, where its file holds more than it; else None."""

    @property
    def computes(self) -> str:
        """What a verdict on it is kept by: equal for two artifacts that compute the same."""
        return self.content or self.blake3

    @property
    def label(self) -> str:
        """In a user's words: ``unet 512x512 f16``."""
        return " ".join(str(p) for p in (self.component, self.size, self.precision) if p)


@dataclass(frozen=True)
class Conformance:
    """Whether one file loads as its consumer loads it; each of `faults` is a line on what does not.

    `path` is relative to the artifacts' folder, `consumer` the name of an interface profile;
    `reader` says what the file was opened with.
    """

    component: str
    target: str
    path: str
    consumer: str
    reader: str
    faults: tuple[str, ...]


class Runner(ABC):
    """A loaded artifact: a context manager with `infer`. Reference and devices look the same."""

    @abstractmethod
    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once. Keys are port names; shapes and dtypes are the interface's."""

    def close(self) -> None:  # noqa: B027  (most runners hold nothing)
        """Release what `infer` needs; called on leaving the `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LayerRunner(Runner):
    """A network whose inner tensors can be seen, under the names of an ONNX graph's values.

    `graph` is that graph, of fixed shapes, as the target's own compiler was given it.
    """

    graph: Path

    @abstractmethod
    def layers(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> Mapping[str, Array]:
        """Run once; those of the `wanted` values that there are, in the order of computation.

        What is returned may lie on disk, and be gone after the next run or on closing.
        """


@dataclass(frozen=True)
class Health:
    """What an operation of a network computes: how many NaN and Inf, and its largest magnitude."""

    operation: str
    nan: int
    inf: int
    peak: float


class Interpreter(LayerRunner):
    """A network as its compiler lowered it, whose operations can be told apart.

    Their names are the compiler's own, as its table of precisions has them, in the order of
    computation.
    """

    @abstractmethod
    def health(self, inputs: Mapping[str, Array]) -> list[Health]:
        """Run once; every operation in the order of computation, with what became of it."""


class Target(ABC):
    """A back-end. Attributes describe it to the user; methods do the work."""

    name: str
    """As typed after --target."""
    summary: str
    """One line: what it makes and where that runs."""
    chip: str | None
    """The device the artifacts are for, None where any machine runs them."""
    precisions: tuple[str, ...]
    """Supported precisions, as in `targets.sophgo.precisions`."""
    expected_profile: str | None = None
    """The interface profile of the hosts that run these artifacts, where there is one."""
    needs_weights_file: bool = False
    """Whether `bind` wants all weights in one file, at the offsets of the graph."""
    links: bool = False
    """Whether artifacts are hard links to what lies elsewhere, on one disk."""
    takes_tables: bool = False
    """Whether single operations can have a precision of their own."""
    keeps: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Precision -> those that single operations of such an artifact can be kept in where it goes
    wrong, the cheapest first. Needs `takes_tables`, and an `Interpreter` from `interpret`."""
    serves_all_sizes: bool = False
    """Whether one file serves every size, unless it is asked to be static."""
    unproven: str | None = None
    """What a verdict says nothing about, because something else runs in the device's place."""
    made_without: str | None = None
    """What can be made while `check_ready` raises, in words; None: nothing."""
    cannot_run: str | None = None
    """Why no artifact can be opened on this or any machine without the chip; None: they can."""

    @abstractmethod
    def default_precision(self, component: str) -> str:
        """The precision used when the user names none."""

    def needs_calibration(self, precision: str, table: QuantizeTable | None) -> bool:
        """Whether a job wants calibration data. Raises InputError for a table that is none."""
        del precision, table
        return False

    def check_ready(self) -> None:  # noqa: B027  (most targets need nothing installed)
        """Raise ToolchainError, with the command to run, when something is not installed."""

    @abstractmethod
    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Compile one job, or find its skeleton in the cache.

        The values of `weights` are read only where a network can take no others afterwards.
        Raises ToolchainError when the vendor's compiler fails.
        """

    @abstractmethod
    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        """Write one component's artifacts, one per skeleton (they may share a file).

        Files are written below `folder` under temporary names and renamed when whole.
        """

    @abstractmethod
    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load an artifact so that it can be run on this machine."""

    def session(self, artifact: Artifact) -> str | None:
        """Name what artifacts are run by one open runner, each at its own size; None: by its own.

        A consumer that goes from size to size keeps such a file open, and so does whoever judges.
        """
        del artifact
        return None

    def interpret(
        self, job: CompileJob, weights: WeightSource, progress: Progress
    ) -> Runner | None:
        """Open the network as the compiler lowered it, in its arithmetic, on this machine's CPU.

        For artifacts that cannot be run here in reasonable time; None where there is no such
        thing. `weights` lie in one file. Raises ToolchainError, and InputError when it does not
        fit into memory or onto the disk.
        """
        del job, weights, progress
        return None

    def write_table(self, kept: Mapping[str, str], path: Path) -> None:
        """Write the compiler's table that keeps these operations in these precisions."""
        del kept, path
        raise NotImplementedError(f"{self.name} takes no table")

    def open_layers(
        self,
        job: CompileJob,
        artifact: Artifact,
        folder: Path,
        weights: WeightSource,
        progress: Progress,
    ) -> LayerRunner | None:
        """Open an artifact, or what its instructions were made from, with its tensors to be seen.

        None where there is no such thing. `job` is the artifact's, `weights` lie in one file.
        Raises as `interpret` does.
        """
        del job, artifact, folder, weights, progress
        return None

    def complete(
        self, bundle: Bundle, artifacts: Sequence[Artifact], folder: Path
    ) -> list[Artifact]:
        """Write what a consumer reads besides the artifacts, all of which lie in `folder`.

        Returns them, with such files among theirs.
        """
        del bundle, folder
        return list(artifacts)

    def conformance(
        self, bundle: Bundle, artifacts: Sequence[Artifact], folder: Path
    ) -> list[Conformance]:
        """Check this target's artifacts against the consumer that their profile names.

        Nothing where it names none that opens files of this target in a way of its own.
        """
        del bundle, artifacts, folder
        return []

    @abstractmethod
    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        """The cache entry that `compile` would reuse for this job, if there is one."""

    @abstractmethod
    def predict(self, work: Workload) -> Cost:
        """What `compile` will cost here, measured constants applied to one job."""

    def predict_bind(self, works: Sequence[Workload]) -> Cost:
        """What `bind` will cost for one component's skeletons.

        `written` is what the artifacts take where they cannot be links into the cache.
        """
        del works
        return Cost()

    def predict_run(self, work: Workload) -> float | None:
        """What `run_seconds` will say of the artifact of this job."""
        del work
        return None

    def predict_interpretation(self, work: Workload) -> tuple[Cost, float] | None:
        """What `interpret` will cost, and seconds of one run of it; None where there is none."""
        del work
        return None

    def run_seconds(self, artifact: Artifact, folder: Path) -> float | None:
        """Estimate the seconds of one `infer` here; None where it is too short to matter."""
        del artifact, folder
        return None
