"""Sophgo chips as a target: one bmodel a component, one stage a size, run on the chip emulator."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from converter.cache import Cache
from converter.cost import Cost
from converter.errors import InputError
from converter.files import sha256_of
from converter.progress import Event, Progress
from converter.weights import WeightSource
from targets.base import Artifact, CompileJob, Runner, Skeleton, Target, Workload
from targets.sophgo.chips import get_chip
from targets.sophgo.compilation import compile_graph, recipe
from targets.sophgo.cost import bind_cost, compile_cost
from targets.sophgo.emulation_time import emulation_seconds, predicted_seconds
from targets.sophgo.emulator import EmulatorRunner
from targets.sophgo.graphs import StaticGraph, find_static_graph, static_graph
from targets.sophgo.packing import pack, stage_record
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir

DEFAULT_PRECISIONS = {
    "text_encoder": "f32",  # small; its error reaches every step of the sampler
    "unet": "f16",
    "controlnet": "f16",
    "vae_encoder": "f16",
    "vae_decoder": "bf16",  # activations beyond the range of f16 with some checkpoints
}
"""What the existing deployments use."""


class SophgoTarget(Target):
    """bmodels for one Sophgo chip, compiled by tpu-mlir."""

    precisions = ("f32", "f16", "bf16")
    expected_profile = "sd-lcm-tpu"
    needs_weights_to_compile = True

    def __init__(self, name: str = "bm1684x") -> None:
        self._chip = get_chip(name)
        self._toolchain = TpuMlir()
        self.name = name
        self.chip = self._chip.name
        self.summary = self._chip.summary

    def default_precision(self, component: str) -> str:
        """What the existing deployments use for the component; f16 for one they do not have."""
        return DEFAULT_PRECISIONS.get(component, "f16")

    def check_ready(self) -> None:
        """Raise ToolchainError, with the command to run, when tpu-mlir is not installed."""
        self._toolchain.check_ready()

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        """Compile one job with its weights, or find it in the cache. Raises ToolchainError."""
        self.check_ready()
        if job.precision not in self.precisions:
            raise InputError(
                f"{self.name} has no precision {job.precision!r}: choose one of "
                f"{', '.join(self.precisions)}"
            )
        if weights.file is None:
            raise InputError(f"{job.label}: the weights are not in a file: export a bundle first")
        file = weights.file
        graph = static_graph(job)
        made = Cache("skeletons").make(
            f"{job.label} for {self.name}",
            self._inputs(job, graph, weights.key),
            lambda folder: compile_graph(
                self._toolchain, self._chip, job, graph, file, folder, progress
            ),
        )
        predicted_ms = StageRecord.load(made.path).cycle_model.runtime_ms
        note = f"{job.label}: {predicted_ms:.4g} ms on {self.name} by the compiler; {made.why}"
        progress(Event(f"compile {job.label}", 1.0, note))
        return Skeleton(job, made.key, made.path, weights.key, predicted_ms, made.reused, made.why)

    def _inputs(self, job: CompileJob, graph: StaticGraph, weights_key: str) -> dict[str, str]:
        """Everything that a skeleton is made from."""
        return {
            "graph": graph.sha256,
            "weights": weights_key,
            "precision": job.precision,
            "effort": job.effort,
            "chip": self._chip.name,
            "batch": str(job.batch),
            "toolchain": f"{self._toolchain.name} {self._toolchain.version}",
            "steps": hashlib.sha256(recipe(self._chip).encode()).hexdigest(),
        }

    def is_compiled(self, job: CompileJob, weights_key: str) -> bool:
        """Whether these weights were compiled at this size and precision before."""
        graph = find_static_graph(job)
        if graph is None:
            return False
        return Cache("skeletons").find(self._inputs(job, graph, weights_key)) is not None

    def predict(self, work: Workload) -> Cost:
        """See `targets.sophgo.cost`."""
        return compile_cost(work)

    def predict_bind(self, works: Sequence[Workload]) -> Cost:
        """See `targets.sophgo.cost`."""
        return bind_cost(works)

    def predict_run(self, work: Workload) -> float | None:
        """Estimated seconds of one run on the emulator."""
        return predicted_seconds(work)

    def bind(
        self, skeletons: Sequence[Skeleton], weights: WeightSource, folder: Path
    ) -> list[Artifact]:
        """Combine one component's skeletons into `<target>/<name>.bmodel`, a stage for each."""
        foreign = [s.job.label for s in skeletons if s.weights_key != weights.key]
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: compiled with other weights than these")
        packed = pack(self._toolchain, skeletons, folder / self.name)
        described = packed.with_suffix(".json")
        digest = sha256_of(packed)
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
                sha256=digest,
                key=skeleton.key,
                weights_key=weights.key,
                reused=skeleton.reused,
                why=skeleton.why,
                how="compiled with weights",
                predicted_ms=skeleton.predicted_ms,
            )
            for skeleton in skeletons
        ]

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        """Load the artifact's stage on the chip emulator. Raises ToolchainError."""
        self.check_ready()
        packed = folder / artifact.path
        record = stage_record(packed, artifact.key)
        return EmulatorRunner(self._toolchain, self._chip, packed, record)

    def run_seconds(self, artifact: Artifact, folder: Path) -> float | None:
        """Estimated seconds of one run of this stage on the emulator."""
        return emulation_seconds(stage_record(folder / artifact.path, artifact.key))
