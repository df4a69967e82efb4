"""Rescue a component that fails: keep as few operations as possible in a higher precision.

The compiler's interpreter says where NaN begins, and tries every table in seconds; what it finds is
compiled once, and judged again like any other artifact.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converter.bundle import Bundle
from converter.errors import InputError
from converter.files import replacing, sha256_of
from converter.progress import Event, Progress, silent
from targets.adding import as_before
from targets.base import (
    Artifact,
    Health,
    Interpreter,
    QuantizeTable,
    Target,
    ToolchainError,
)
from targets.compile import job_of, recompile
from targets.manifest import Manifest
from targets.one_file import in_one_file
from validate.base import Judge, Level, Result, Threshold, Verdict
from validate.metrics import measure
from validate.plan import load_artifacts
from validate.rescue.repair import Cost, Repair
from validate.rescue.search import OutOfTimeError, sick, smallest
from validate.store import inputs_of, read_arrays

FOLDER = "rescue"
"""Tables lie here, inside the artifacts' folder: they belong to the command that compiles again."""

ROUNDS = 8
"""How often the interpreter is asked where NaN begins: once what came first is kept, the next."""


@dataclass(frozen=True)
class Workshop:
    """What rescuing needs: the folder, its bundle, an opener of targets, the judge, the time.

    `budget` is in seconds for one component.
    """

    manifest: Manifest
    bundle: Bundle
    open_target: Callable[[str], Target]
    judge: Judge
    budget: float
    progress: Progress


def rescue(results: Sequence[Result], workshop: Workshop) -> list[Repair]:
    """Rescue every component that fails on a target that can keep single operations."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if result.level == Level.COMPONENT and result.verdict is Verdict.FAIL:
            key = (result.target, result.component, result.precision)
            groups.setdefault(key, []).append(result)
    repairs = []
    for failed in groups.values():
        repair = _rescue(failed, workshop)
        workshop.progress(Event(f"rescue {repair.component}", 1, repair.sentence))
        repairs.append(repair)
        if repair.table is not None:  # the next one starts from what lies there now
            workshop = replace(workshop, manifest=load_artifacts(workshop.manifest.folder))
    return repairs


def _rescue(failed: Sequence[Result], workshop: Workshop) -> Repair:
    """All sizes of a component get the table that the worst of them needs."""
    worst = min(failed, key=lambda result: result.worst.psnr_db or 0.0)
    target = workshop.open_target(worst.target)
    artifact = _artifact(worst, workshop.manifest)
    nothing = Repair(
        worst.component,
        worst.target,
        worst.precision,
        cause=worst.worst.ruling.sentence,
        kept=(),
        kept_in="",
        operations=0,
        trials=0,
        seconds=0.0,
        outcome="",
        psnr_before=worst.worst.psnr_db,
    )
    if not target.keeps.get(artifact.precision):
        outcome = f"{target.name} cannot keep single operations of {artifact.precision} in another"
        return replace(nothing, outcome=f"{outcome} precision")
    if artifact.quantize_table is not None:
        return replace(nothing, outcome="it has a table of its own already")
    if worst.worst.saved is None:
        return replace(nothing, outcome="nothing of it was run")
    try:
        trials = Trials(worst, artifact, target, workshop)
        before = _cost(artifact, workshop.manifest)
        found = nothing
        for precision in target.keeps[artifact.precision]:
            found = trials.search(nothing, precision)
            if found.table is None:
                continue
            try:
                rebuilt = _rebuild(failed, found.table, target, workshop)
            except ToolchainError as e:  # what can be interpreted cannot always be compiled
                outcome = f"kept in {precision}, {', '.join(found.kept)}: {e}"
                found = replace(found, table=None, outcome=outcome)
                continue
            return replace(found, before=before, after=_cost(rebuilt, workshop.manifest))
    except (InputError, ToolchainError) as e:
        return replace(nothing, outcome=str(e))
    return found


class Trials:
    """Tables tried in the compiler's interpreter, on the case that fails worst."""

    def __init__(
        self, result: Result, artifact: Artifact, target: Target, workshop: Workshop
    ) -> None:
        """Run it once; raises InputError for a case whose arrays are gone, and ToolchainError."""
        assert result.worst.reference is not None
        self._result, self._artifact = result, artifact
        self._target, self._workshop = target, workshop
        self._job = job_of(workshop.bundle, artifact)
        self._output = result.worst.output
        self._reference = read_arrays(result.worst.reference)[self._output]
        self._inputs = inputs_of(result.worst)
        self._began = time.monotonic()
        self._tried: dict[tuple[str, frozenset[str]], tuple[bool, float | None]] = {}
        self._kept_in = ""
        self._first = self._health(())

    def search(self, repair: Repair, kept_in: str) -> Repair:
        """Find the smallest set, and fill the repair in; raises ToolchainError where that fails."""
        self._kept_in = kept_in
        health = self._first
        repair = replace(repair, cause=_cause(health, self._result), operations=len(health))
        outcome = f"not even with every operation kept in {kept_in}"
        try:
            begun = self._begin(health)
            if begun is not None:
                return self._found(repair, smallest(begun, self._works))
        except OutOfTimeError:
            outcome = f"nothing was found in {self._workshop.budget / 60:g} min"
        return replace(repair, outcome=outcome, trials=len(self._tried), seconds=self._seconds)

    def _begin(self, health: Sequence[Health]) -> Sequence[str] | None:
        """A set that works, as small as the first NaN tells; None where not even all of them do."""
        operations = [one.operation for one in health]
        kept: list[str] = []
        for _ in range(ROUNDS):
            more = [name for name in sick(health) if name not in kept]
            if not more:
                break
            kept += more
            if self._works(kept):
                return kept
            health = self._health(kept)
        return operations if self._works(operations) else None

    def _works(self, kept: Sequence[str]) -> bool:
        """Whether the network passes with these kept; raises OutOfTimeError."""
        key = self._kept_in, frozenset(kept)
        if key not in self._tried:
            if time.monotonic() - self._began > self._workshop.budget:
                raise OutOfTimeError
            with self._open(kept) as runner:
                output = runner.infer(self._inputs)[self._output]
            measurement = measure(output, self._reference)
            ruling = self._workshop.judge.rule(measurement, self._threshold)
            agreement = measurement.agreement
            psnr = None if agreement is None else agreement.psnr_db
            self._tried[key] = ruling.verdict is Verdict.PASS, psnr
            stage = f"rescue {self._artifact.component}"
            done = min(0.9, len(self._tried) / 20)
            self._workshop.progress(Event(stage, done))
        return self._tried[key][0]

    def _health(self, kept: Sequence[str]) -> list[Health]:
        with self._open(kept) as runner:
            return runner.health(self._inputs)

    def _open(self, kept: Sequence[str]) -> Interpreter:
        job, workshop = self._job, self._workshop
        if kept:
            job = replace(job, quantize_table=self._write(kept))
        own = workshop.bundle.weights(job.component)
        weights = in_one_file(job.component, own, job.graph, silent)
        runner = self._target.interpret(job, weights, silent)
        if not isinstance(runner, Interpreter):
            raise ToolchainError(f"{self._target.name} has no interpreter that tells operations")
        return runner

    @property
    def _threshold(self) -> Threshold:
        return self._result.threshold

    def _write(self, kept: Sequence[str]) -> QuantizeTable:
        path = self._workshop.manifest.folder / FOLDER / f"{self._artifact.component}.table"
        with replacing(path) as work:
            self._target.write_table(dict.fromkeys(kept, self._kept_in), work)
        return QuantizeTable(path.absolute(), sha256_of(path))

    def _found(self, repair: Repair, kept: Sequence[str]) -> Repair:
        return replace(
            repair,
            kept=kept,
            kept_in=self._kept_in,
            trials=len(self._tried),
            seconds=self._seconds,
            psnr_after=self._tried[self._kept_in, frozenset(kept)][1],
            table=self._write(kept).path,
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _cause(health: Sequence[Health], result: Result) -> str:
    """What the interpreter shows, in words."""
    named = sick(health)
    if not named:
        return f"{result.worst.ruling.sentence}; every operation is finite"
    by_name = {one.operation: one for one in health}
    first, last = by_name[named[0]], by_name[named[-1]]
    place = list(by_name).index(first.operation)
    before = max((one.peak for one in list(health)[:place]), default=0.0)
    words = f"Inf begins at {first.operation}" if first.inf else f"NaN begins at {first.operation}"
    if last.nan and last is not first:
        words += f" and is NaN from {last.operation} on"
    return f"{words} (largest value before it {before:.3g})"


def _rebuild(failed: Sequence[Result], table: Path, target: Target, workshop: Workshop) -> Artifact:
    """Compile every size of the component with the table; the other artifacts stay."""
    first, manifest = failed[0], workshop.manifest
    command = manifest.commands[first.target]
    before = as_before(command, workshop.bundle.folder, manifest.folder)
    component = first.component
    request = replace(before, components=(component,), quantize_tables={component: table})
    changed = recompile(request, manifest, target, workshop.progress)
    return _artifact(first, changed)


def _artifact(result: Result, manifest: Manifest) -> Artifact:
    wanted = (result.target, result.component, result.size)
    return next(a for a in manifest.artifacts if (a.target, a.component, a.size) == wanted)


def _cost(artifact: Artifact, manifest: Manifest) -> Cost:
    return Cost((manifest.folder / artifact.path).stat().st_size, artifact.predicted_ms)
