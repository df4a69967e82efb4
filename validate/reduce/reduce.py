"""Shrink a graph that fails on a target to the smallest part that still does.

First the end is cut off, so that the first value that is wrong is the output; then the beginning,
whose values are given in fp32 instead; then whatever branch is not needed. Every cut is tried on
the target, so what remains has been seen to fail.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from converter.bundle import Bundle
from converter.cache import Cache
from converter.errors import InputError
from converter.progress import Event, Progress, silent
from converter.weights import Array
from passes.linked_weights import read_graph
from passes.specialize_size import SpecializeSizePass
from targets.base import Artifact, Target, ToolchainError
from targets.compile import job_of
from targets.manifest import Manifest
from targets.one_file import in_one_file
from targets.onnx_values import OnnxValues
from validate.base import Check, Judge, Level, Result, Verdict
from validate.metrics import measure
from validate.reduce.repro import Repro, write_repro
from validate.reduce.subgraph import StaticGraph, embed_weights
from validate.reduce.trial import Outcome, Stand
from validate.store import inputs_of

FEW = 24
"""Nodes up to which every branch is tried for itself."""


@dataclass(frozen=True)
class Reduction:
    """What came of one artifact; `folder` None where `sentence` says why it was not reduced."""

    label: str
    sentence: str
    folder: Path | None = None


def reduce_failed(
    results: Sequence[Result],
    manifest: Manifest,
    bundle: Bundle,
    open_target: Callable[[str], Target],
    judge: Judge,
    output: Path,
    progress: Progress,
) -> list[Reduction]:
    """Reduce every artifact whose outputs fail, each into a folder below `output`."""
    reductions = []
    for result in results:
        if result.level != Level.COMPONENT or result.verdict is not Verdict.FAIL:
            continue
        progress(Event(f"reduce {result.label}", 0))
        artifact = next(
            a for a in manifest.artifacts
            if (a.target, a.component, a.size) == (result.target, result.component, result.size)
        )  # fmt: skip
        try:
            target = open_target(result.target)
            reducer = _Reducer(result, artifact, manifest.folder, bundle, target, judge)
            reduction = reducer.reduce(output)
        except (InputError, ToolchainError) as e:
            reduction = Reduction(result.label, f"not reduced: {e}")
        progress(Event(f"reduce {result.label}", 1, f"{result.label}: {reduction.sentence}"))
        reductions.append(reduction)
    return reductions


class _Reducer:
    def __init__(
        self,
        result: Result,
        artifact: Artifact,
        folder: Path,
        bundle: Bundle,
        target: Target,
        judge: Judge,
    ) -> None:
        check = _run_check(result)
        self._folder = folder
        self._result, self._artifact, self._bundle = result, artifact, bundle
        self._target, self._judge = target, judge
        self._job = job_of(bundle, artifact)
        own = bundle.weights(artifact.component)
        self._weights = in_one_file(artifact.component, own, self._job.graph, silent)
        self._model = read_graph(self._job.graph)
        SpecializeSizePass(dict(self._job.input_shapes))(self._model)
        self._graph = StaticGraph(self._model)
        self._given = dict(inputs_of(check))
        self._trials = 0

    def reduce(self, output: Path) -> Reduction:
        """Find the smallest part and write its folder."""
        with Cache("reduced").scratch() as work:
            assert self._weights.file is not None
            whole = work / "whole.onnx"
            ir.save(self._model, whole)
            self._values = OnnxValues(whole, as_written=True, weights=self._weights.file.parent)
            self._cuttable = set(self._values.values())
            stand = self._stand(work)
            if stand is None:
                return Reduction(
                    self._result.label,
                    "not reduced: compiled once more, the target computes what the graph says: so "
                    "the artifact is not what it was compiled to, or the graph differs from torch: "
                    "see '--level layer,export'",
                )
            outputs = self._shorten(stand)
            inputs, outcome = self._trim(stand, outputs)
            outputs, outcome = self._crop(stand, inputs, outputs, outcome)
            nodes = self._graph.size(inputs, outputs)
            folder = output / "-".join(
                str(p) for p in (self._artifact.component, self._artifact.size,
                                 self._artifact.precision, self._artifact.target) if p
            )  # fmt: skip
            part = self._graph.part(inputs, outputs)
            embed_weights(part, self._weights.file)
        kinds = ", ".join(dict.fromkeys(node.op_type for node in part.graph.node))
        sentence = (
            f"{nodes} of {len(self._model.graph)} nodes still fail ({kinds}): "
            f"{outcome.ruling.sentence}; {self._trials} trials"
        )
        write_repro(Repro.of(self._result, stand, sentence), part, outcome, folder)
        return Reduction(self._result.label, sentence, folder)

    def _stand(self, work: Path) -> Stand | None:
        """The quickest way to see the whole graph fail; None where it does not."""
        stand = Stand(
            self._target,
            self._job,
            self._weights,
            self._judge,
            self._result.threshold,
            work,
            lowered=False,
        )
        quick = [] if type(self._target).interpret is Target.interpret else [True]
        for lowered in (*quick, False):
            one = replace(stand, lowered=lowered)
            if self._try(one, (), self._graph.outputs).failed:
                return one
        return None

    def _shorten(self, stand: Stand) -> list[str]:
        """The first value that fails as the output of all that comes before it."""
        names = [name for name in self._values.values() if name not in self._graph.outputs]
        for name in self._suspects(names):
            if self._try(stand, (), [name]).failed:
                return [name]
        low, high = 0, len(names)  # what is before `low` agrees, `high` fails
        while low < high:
            middle = (low + high) // 2
            if self._try(stand, (), [names[middle]]).failed:
                high = middle
            else:
                low = middle + 1
        return [names[high]] if high < len(names) else self._graph.outputs

    def _suspects(self, names: Sequence[str]) -> list[str]:
        """What the target shows of its inside, where it shows anything: the first wrong value."""
        try:
            runner = self._target.open_layers(
                self._job, self._artifact, self._folder, self._weights, silent
            )
        except (InputError, ToolchainError):
            return []
        if runner is None:
            return []
        with closing(runner):
            try:
                seen = runner.layers(self._given, names)
            except ToolchainError:
                return []
            expected = self._values.layers(self._given, [n for n in names if n in seen])
            for name, wanted in expected.items():
                found = seen[name]
                if found.size != wanted.size:
                    continue
                measurement = measure(found.reshape(wanted.shape), wanted)
                ruling = self._judge.rule(measurement, self._result.threshold)
                if ruling.verdict is Verdict.FAIL and measurement.peak:
                    return [name]
        return []

    def _trim(self, stand: Stand, outputs: Sequence[str]) -> tuple[list[str], Outcome]:
        """The values to begin at: as near to the output as still fails."""
        distance, inputs = 0, list[str]()
        outcome = self._try(stand, inputs, outputs)
        if len(outputs) == 1:
            while True:
                near = self._graph.within(outputs[0], distance, self._cuttable)
                found = self._try(stand, near, outputs)
                if found.failed or not near:
                    inputs, outcome = near, found
                    break
                distance = max(1, 2 * distance)
        if self._graph.size(inputs, outputs) <= FEW:
            for name in reversed(self._graph.inner(inputs, outputs)):
                if name not in self._cuttable:
                    continue
                found = self._try(stand, [*inputs, name], outputs)
                if found.failed:
                    inputs, outcome = [*inputs, name], found
        return inputs, outcome

    def _crop(
        self, stand: Stand, inputs: Sequence[str], outputs: list[str], outcome: Outcome
    ) -> tuple[list[str], Outcome]:
        """The first value inside a small part that fails too: bisection can miss it by a branch."""
        inner = self._graph.inner(inputs, outputs)
        if len(inner) < FEW:
            for name in inner:
                if name not in self._cuttable:
                    continue
                found = self._try(stand, inputs, [name])
                if found.failed:
                    return [name], found
        return outputs, outcome

    def _try(self, stand: Stand, inputs: Sequence[str], outputs: Sequence[str]) -> Outcome:
        """Run a part on what the whole graph computes in fp32 at its beginning."""
        self._trials += 1
        read = self._graph.inputs_of(inputs, outputs)
        inner = [name for name in read if name not in self._given]
        computed = self._values.layers(self._given, inner) if inner else {}
        known: Mapping[str, Array] = {**self._given, **computed}
        given = {name: known[name] for name in read}
        return stand.run(self._graph.part(inputs, outputs), given)


def _run_check(result: Result) -> Check:
    """The worst check that has arrays; raises InputError where nothing was run."""
    found = next((check for check in result.checks if check.reference is not None), None)
    if found is None:
        raise InputError("nothing of it was run")
    return found
