"""Sophgo chips as a target: one bmodel a component, one stage a size, run on the chip emulator.

A skeleton is compiled once per architecture, size, precision and chip; any checkpoint's weights are
bound to it without the compiler. Where a network cannot be bound, it is compiled with its weights.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from converter.bundle import Bundle
from converter.cache import SKELETONS, Cache, Made
from converter.cost import Cost
from converter.errors import InputError
from converter.files import blake3_of
from converter.progress import Event, Progress
from converter.weights import WeightSource
from targets.base import (
    Artifact,
    CompileJob,
    Conformance,
    LayerRunner,
    QuantizeTable,
    Runner,
    Skeleton,
    Target,
    ToolchainError,
    Workload,
)
from targets.sophgo.binding import bind, content_of, stage_record
from targets.sophgo.chips import get_chip
from targets.sophgo.compilation import LOG_FILE, compile_graph, recipe, unbound
from targets.sophgo.conformance import check_set
from targets.sophgo.cost import (
    INTERPRETED_PER_SECOND,
    bind_cost,
    compile_cost,
    interpretation_cost,
)
from targets.sophgo.emulation_time import emulation_seconds, predicted_seconds
from targets.sophgo.emulator import EmulatorRunner
from targets.sophgo.graphs import find_static_graph, static_graph
from targets.sophgo.interpreter import InterpreterRunner
from targets.sophgo.operations import write_table
from targets.sophgo.precisions import PRECISIONS, modes_of
from targets.sophgo.record import StageRecord
from targets.sophgo.shipped import (
    WITHOUT_KERNEL,
    fill,
    find_archive,
    find_kernel,
    static_graph_hash,
    what_ships,
)
from targets.sophgo.toolchain import TpuMlir

DEFAULT_PRECISIONS = {
    "text_encoder": "f32",  # small; its error reaches every step of the sampler
    "unet": "f16",
    "controlnet": "f16",
    "vae_encoder": "f16",
    "vae_decoder": "bf16",  # activations beyond the range of f16 with some checkpoints
}
"""What the existing deployments use."""


# Not bf16 inside f16: the compiler (1.30.2) lowers it and then ends in an assertion of its code
# generator, which has no cast from f16 to it (tpu_bdc_cast: src_dtype != DT_FP16).
KEEPS = dict.fromkeys(("f16", "w8f16", "w4f16", "bf16", "w8bf16", "w4bf16"), ("f32",))
"""Precision -> what its single operations can be kept in."""

SHIPPED = "it came with the program"
SHIPPED_WITHOUT_KERNEL = (
    f"{SHIPPED}, without the vendor's kernel module, in whose place the device's runtime takes its "
    "own (with tpu-mlir installed, compile again to have it inside)"
)
"""How a skeleton came here that was not compiled."""

SCALES = "the scales of INT8 depend on their values"
"""Why nothing else is tried with calibration data."""


class SophgoTarget(Target):
    """bmodels for one Sophgo chip, compiled by tpu-mlir."""

    expected_profile = "sd-lcm-tpu"
    takes_tables = True
    keeps = KEEPS

    def __init__(self, name: str = "bm1684x") -> None:
        self._chip = get_chip(name)
        self._toolchain = TpuMlir()
        self.name = self._chip.target
        self.chip = self._chip.name
        self.summary = self._chip.summary
        self.precisions = self._chip.precisions
        self.cannot_run = self._chip.no_emulator
        self.made_without = what_ships(self.name)

    def default_precision(self, component: str) -> str:
        """What the existing deployments use for the component; f16 for what they do not have."""
        chosen = DEFAULT_PRECISIONS.get(component, "f16")
        return chosen if chosen in self.precisions else "f16"

    def needs_calibration(self, precision: str, table: QuantizeTable | None) -> bool:
        """Whether anything is INT8. Raises InputError for a table that the compiler cannot read."""
        modes = {} if table is None else modes_of(table.path)
        if table is not None and PRECISIONS[precision].mixed:
            raise InputError(
                f"{precision} chooses the precision of every operation itself: write "
                f"{PRECISIONS[precision].quantize.lower()} beside --quantize-table"
            )
        return PRECISIONS[precision].calibrated or "INT8" in modes.values()

    def check_ready(self) -> None:
        """Raise ToolchainError, with the command to run, when it cannot be compiled here."""
        self._toolchain.check_ready()
        if missing := self._chip.missing():
            raise ToolchainError(
                f"tpu-mlir builds kernels for {self.chip} while it compiles and needs "
                f"{', '.join(missing)} for that: install them (Debian, Ubuntu: 'apt install cmake "
                "make gcc g++')"
            )

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Compile one job, or find its skeleton in the cache. Raises ToolchainError."""
        if job.precision not in self.precisions:
            raise InputError(
                f"{self.name} has no precision {job.precision!r}: choose one of "
                f"{', '.join(self.precisions)}"
            )
        if job.calibration is not None and job.batch > 1:
            raise InputError(
                f"{job.label}: tpu-mlir calibrates networks of batch 1 only: compile with -b 1, "
                "and let the host run it once for each prompt"
            )
        reason: str | None = SCALES if job.calibration is not None else None
        weights_key = None
        if reason is None:
            made = self.skeleton(job, progress)
            reason = unbound(made.path)
        if reason is not None:
            note = f"{job.label}: compiled with its weights, for others do not fit it: {reason}"
            progress(Event(f"compile {job.label}", 0.0, note))
            made, weights_key = self._make(job, weights, progress), weights.key
        record = StageRecord.load(made.path).with_timeline(made.path)
        predicted_ms = record.cycle_model.runtime_ms
        note = f"{job.label}: {predicted_ms:.4g} ms on {self.name} by the compiler; {made.why}"
        if record.cores < self._chip.cores:
            note += f"; of {self._chip.cores} cores it uses {record.cores}"
        log = made.path / LOG_FILE  # what came with the program has none
        note += f"; log: {log}" if log.is_file() and not made.reused else ""
        progress(Event(f"compile {job.label}", 1.0, note))
        return Skeleton(
            job,
            made.key,
            made.path,
            weights_key,
            predicted_ms,
            made.reused,
            made.why,
            record.estimate,
        )

    def skeleton(self, job: CompileJob, progress: Progress) -> Made:
        """The cache entry of a job compiled without weights. Raises ToolchainError."""
        return self._make(job, None, progress)

    def _make(self, job: CompileJob, weights: WeightSource | None, progress: Progress) -> Made:
        """A cache entry: a skeleton, or with `weights` a bmodel that serves those alone."""
        if weights is not None and weights.file is None:
            raise InputError(
                f"{job.label}: must be compiled with its weights, which lie in several files: "
                "export without --link"
            )
        if weights is None and (shipped := self._shipped(job, static_graph_hash(job))):
            return shipped
        graph = static_graph(job)
        if weights is None and (shipped := self._shipped(job, graph.sha256)):
            return shipped
        file = None if weights is None else weights.file

        def build(folder: Path) -> None:
            self.check_ready()
            compile_graph(self._toolchain, self._chip, job, graph, file, folder, progress)

        inputs = self._inputs(job, graph.sha256, None if weights is None else weights.key)
        return Cache(SKELETONS).make(self._label(job), inputs, build)

    def _shipped(self, job: CompileJob, graph_hash: str | None) -> Made | None:
        """The skeleton that came with the program, or lies in the cache as it; else None."""
        if graph_hash is None:
            return None
        inputs, cache = self._inputs(job, graph_hash, None), Cache(SKELETONS)
        archive = find_archive(inputs)
        if archive is None:
            return None
        here = cache.find(inputs) is not None
        kernel = None if here else find_kernel(self._toolchain.libraries)
        if not here and kernel is None:
            inputs |= WITHOUT_KERNEL
        made = cache.make(self._label(job), inputs, lambda folder: fill(archive, kernel, folder))
        if here:
            return made
        return replace(made, why=SHIPPED if kernel is not None else SHIPPED_WITHOUT_KERNEL)

    def _label(self, job: CompileJob) -> str:
        return f"{job.label} for {self.name}"

    def _inputs(self, job: CompileJob, graph_hash: str, weights_key: str | None) -> dict[str, str]:
        """Everything that a skeleton is made from."""
        return {
            "graph": graph_hash,
            **({} if weights_key is None else {"weights": weights_key}),
            "precision": job.precision,
            "effort": job.effort,
            **({} if job.calibration is None else {"calibration": job.calibration.content}),
            **({} if job.quantize_table is None else {"table": job.quantize_table.content}),
            "chip": self._chip.target,
            "batch": str(job.batch),
            "toolchain": f"{self._toolchain.name} {self._toolchain.version}",
            "steps": hashlib.sha256(recipe(self._chip, job).encode()).hexdigest(),
        }

    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        """This size and precision, compiled before for any weights or else for these."""
        graph = find_static_graph(job)
        graph_hash = static_graph_hash(job) if graph is None else graph.sha256
        if graph_hash is None:
            return None
        if shipped := self._shipped(job, graph_hash):
            return shipped.path
        found = None
        if job.calibration is None:
            found = Cache(SKELETONS).find(self._inputs(job, graph_hash, None))
            if found is None or unbound(found) is None:
                return found
        return Cache(SKELETONS).find(self._inputs(job, graph_hash, weights_key))

    def predict(self, work: Workload) -> Cost:
        """See `targets.sophgo.cost`."""
        return compile_cost(work)

    def predict_bind(self, works: Sequence[Workload]) -> Cost:
        """See `targets.sophgo.cost`."""
        return bind_cost(works)

    def predict_run(self, work: Workload) -> float | None:
        """Estimated seconds of one run on the emulator; infinite where there is none."""
        return math.inf if self.cannot_run else predicted_seconds(work)

    def predict_interpretation(self, work: Workload) -> tuple[Cost, float] | None:
        """See `targets.sophgo.cost`."""
        if self.needs_calibration(work.job.precision, work.job.quantize_table):
            return None
        return interpretation_cost(work), work.operations / INTERPRETED_PER_SECOND

    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        """Write one component's bmodel where its consumer opens it, a stage for each skeleton.

        Where none is known: ``<target>/<component>_multisize.bmodel``.
        """
        foreign = [s.job.label for s in skeletons if s.weights_key not in (None, weights.key)]
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: compiled with other weights than these")
        toolchain = f"{self._toolchain.name} {self._toolchain.version}"
        job = skeletons[0].job
        file = job.file or f"{self.name}/{job.component}_multisize"
        packed = folder / f"{file}.bmodel"
        bind(skeletons, weights, packed, toolchain, progress)
        described = packed.with_suffix(".json")
        digest = blake3_of(packed)
        return [
            Artifact(
                component=skeleton.job.component,
                target=self.name,
                chip=self.chip,
                size=skeleton.job.size,
                batch=skeleton.job.batch,
                precision=skeleton.job.precision,
                path=str(packed.relative_to(folder)),
                files=(str(described.relative_to(folder)),),
                blake3=digest,
                key=skeleton.artifact_key(weights),
                weights_key=weights.key,
                reused=skeleton.reused,
                why=skeleton.why,
                how="bound" if skeleton.weights_key is None else "compiled with weights",
                predicted_ms=skeleton.predicted_ms,
                estimate=skeleton.estimate,
                quantize_table=skeleton.job.table_content,
                content=content_of(skeleton, weights),
            )
            for skeleton in skeletons
        ]

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load the artifact's stage on the chip emulator. Raises ToolchainError."""
        self._toolchain.check_ready()
        packed = folder / artifact.path
        record = stage_record(packed, artifact.key)
        return EmulatorRunner(self._toolchain, self._chip, packed, record)

    def interpret(
        self, job: CompileJob, weights: WeightSource, progress: Progress
    ) -> InterpreterRunner | None:
        """The lowered network in the vendor's interpreter. See `targets.sophgo.interpreter`.

        None for a precision of calibrated ranges: no manifest has them.
        """
        if self.needs_calibration(job.precision, job.quantize_table):
            return None
        if weights.file is None:
            raise ValueError(f"{job.label}: its weights lie in several files")
        self.check_ready()
        return InterpreterRunner(self._toolchain, self._chip, job, weights.file, progress)

    def write_table(self, kept: Mapping[str, str], path: Path) -> None:
        """See `targets.sophgo.operations`."""
        write_table(kept, path)

    def open_layers(
        self,
        job: CompileJob,
        artifact: Artifact,
        folder: Path,
        weights: WeightSource,
        progress: Progress,
    ) -> LayerRunner | None:
        """The lowered network: a bmodel shows nothing of what is inside."""
        del artifact, folder
        return self.interpret(job, weights, progress)

    def conformance(
        self, bundle: Bundle, artifacts: Sequence[Artifact], folder: Path
    ) -> list[Conformance]:
        """See `targets.sophgo.conformance`."""
        return check_set(bundle, artifacts, folder, self._toolchain)

    def run_seconds(self, artifact: Artifact, folder: Path) -> float | None:
        """Estimated seconds of one run of this stage on the emulator."""
        return emulation_seconds(stage_record(folder / artifact.path, artifact.key))
