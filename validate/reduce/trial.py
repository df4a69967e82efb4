"""Does a part of a graph still fail on a target? The same inputs for both, in fp32 and there."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from converter.progress import silent
from converter.weights import Array, WeightSource
from targets.base import CompileJob, Runner, Target
from targets.onnx_values import OnnxValues
from validate.base import Judge, Measurement, Ruling, Threshold, Verdict
from validate.metrics import measure


@dataclass(frozen=True)
class Outcome:
    """What a part gave on the target, and what was expected. `worst` is of the worst output."""

    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    outputs: Mapping[str, Array]
    worst: Measurement
    ruling: Ruling

    @property
    def failed(self) -> bool:
        """Whether it still fails."""
        return self.ruling.verdict is Verdict.FAIL


@dataclass(frozen=True)
class Stand:
    """A target set up for trials. `lowered`: in the compiler's interpreter, not the artifact."""

    target: Target
    job: CompileJob
    weights: WeightSource
    judge: Judge
    threshold: Threshold
    folder: Path
    lowered: bool

    def run(self, model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Outcome:
        """Compile a part and run it beside ONNX Runtime; raises ToolchainError."""
        path = self.folder / "part.onnx"
        path.write_bytes(model.SerializeToString())
        assert self.weights.file is not None
        expected = OnnxValues(path, as_written=True, weights=self.weights.file.parent).infer(inputs)
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        job = replace(
            self.job,
            graph=path,
            graph_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            input_shapes=shapes,
            size=None,
            file=None,
        )
        with self._open(job) as runner:
            outputs = runner.infer(inputs)
        return judged(inputs, expected, outputs, self.judge, self.threshold)

    @contextmanager
    def _open(self, job: CompileJob) -> Any:
        runner: Runner | None = None
        if self.lowered:
            runner = self.target.interpret(job, self.weights, silent)
        if runner is None:
            skeleton = self.target.compile(job, self.weights, silent)
            place = self.folder / "artifact"
            (artifact,) = self.target.bind([skeleton], self.weights, place, silent)
            runner = self.target.open(artifact, place)
        with runner:
            yield runner


def judged(
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    outputs: Mapping[str, Array],
    judge: Judge,
    threshold: Threshold,
) -> Outcome:
    """Measure every output; the worst decides."""
    measured = [measure(outputs.get(name), wanted) for name, wanted in expected.items()]
    rulings = [judge.rule(measurement, threshold) for measurement in measured]
    pairs: Sequence[tuple[Measurement, Ruling]] = list(zip(measured, rulings, strict=True))
    worst, ruling = max(pairs, key=lambda pair: (pair[1].verdict.badness, _error(pair[0])))
    return Outcome(inputs, expected, outputs, worst, ruling)


def _error(measurement: Measurement) -> float:
    agreement = measurement.agreement
    return float("inf") if agreement is None else -agreement.psnr_db
