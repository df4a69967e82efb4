"""The running step: feed every case to artifact and reference, and save what comes out.

What is saved already, from the same artifact, weights and inputs, is not run again; then neither
torch nor a vendor's runtime is imported. Nothing is judged here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from converter.bundle import Bundle
from converter.errors import InputError
from converter.progress import Event, Progress
from converter.weights import Array
from targets.base import Artifact, Runner, Target, ToolchainError
from targets.compile import job_of
from targets.one_file import in_one_file
from validate.base import Ruling, Verdict
from validate.inputs import make_case
from validate.plan import Group, Subject
from validate.references import References
from validate.scenes import Scene


@dataclass(frozen=True)
class Outcome:
    """What became of one artifact's run. `missing` is the ruling on cases that were not saved."""

    note: str
    missing: Ruling


NOT_RUN = Outcome(
    "", Ruling(Verdict.INCOMPLETE, "not run: nothing is saved for this artifact as it is now")
)
"""The outcome of an artifact that nobody tried to run."""


@dataclass(frozen=True)
class Bench:
    """Where to run: the artifacts' folder and bundle, an opener of targets, the emulator's time.

    With `lowered` what an emulator would run is run in the compiler's interpreter instead, which
    takes seconds, where there is one.
    """

    folder: Path
    open_target: Callable[[str], Target]
    emulator_budget: float
    progress: Progress
    bundle: Bundle
    lowered: bool = False


def run(groups: Sequence[Group], references: References, bench: Bench) -> dict[Path, Outcome]:
    """Run what is not saved yet. Outcomes are by the folder of each subject's outputs."""
    outcomes = {}
    with _Session() as session:
        for group in groups:
            for subject in group.subjects:
                outcome = _run_subject(subject, group, references, bench, session)
                outcomes[subject.outputs.folder] = outcome
    return outcomes


class _Session:
    """The runner that is open: it stays so for the next artifact that it serves too."""

    def __init__(self) -> None:
        self._name: tuple[str, str] | None = None
        self._open = ExitStack()

    def runner(self, target: Target, artifact: Artifact, folder: Path) -> Runner:
        """Open an artifact, unless that is done. Raises ToolchainError."""
        session = target.session(artifact)
        name = None if session is None else (target.name, session)
        if name is None or name != self._name:
            self.close()
            self._runner = self._open.enter_context(target.open(artifact, folder))
            self._name = name
        return self._runner

    def done(self) -> None:
        """Close a runner that serves nothing else."""
        if self._name is None:
            self.close()

    def close(self) -> None:
        """Close what is open."""
        self._name = None
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run_subject(
    subject: Subject, group: Group, references: References, bench: Bench, session: _Session
) -> Outcome:
    label = f"validate {subject.label}"
    todo = [scene for scene in group.scenes if not subject.outputs.has(scene.name)]
    saved = [scene for scene in group.scenes if scene not in todo]
    bench.progress(Event(label, 0))
    if saved:
        run_reference(saved, group, references)
    if not todo:
        note = "reused: same artifact, weights and inputs as before"
        bench.progress(Event(label, 1, f"{subject.label}: {note}"))
        return Outcome(note, NOT_RUN.missing)
    target = bench.open_target(subject.artifact.target)
    try:
        target.check_ready()
    except ToolchainError as e:
        missing = Ruling(Verdict.INCOMPLETE, f"not run: {e}")
        bench.progress(Event(label, 1, f"{subject.label}: {missing.sentence}"))
        return Outcome("", missing)
    if bench.lowered and target.run_seconds(subject.artifact, bench.folder) is not None:
        note = _interpret(subject, group, target, references, bench)
        if group.scenes and subject.lowered.has(group.scenes[0].name):
            bench.progress(Event(label, 1, f"{subject.label}: {note}"))
            return Outcome(note, NOT_RUN.missing)
    affordable, missing = _affordable(target, subject.artifact, todo, bench)
    if not affordable:
        note = "" if saved else _interpret(subject, group, target, references, bench)
        said = "; ".join(filter(None, (missing.sentence, note)))
        bench.progress(Event(label, 1, f"{subject.label}: {said}"))
        return Outcome(note, missing)
    run_reference(affordable, group, references)
    started = time.monotonic()
    try:
        runner = session.runner(target, subject.artifact, bench.folder)
        for done, scene in enumerate(affordable):
            bench.progress(Event(label, done / len(affordable)))
            seconds, outputs = _timed(runner.infer, group.inputs.load(scene.name))
            subject.outputs.save(scene.name, outputs, seconds)
        session.done()
    except ToolchainError as e:
        session.close()
        return Outcome("", Ruling(Verdict.FAIL, f"it could not be run: {e}"))
    note = f"ran {len(affordable)} cases in {time.monotonic() - started:.1f} s"
    bench.progress(Event(label, 1, f"{subject.label}: {note}"))
    return Outcome(note, missing)


def _interpret(
    subject: Subject, group: Group, target: Target, references: References, bench: Bench
) -> str:
    """Run the lowered network of an artifact that takes too long itself; say what became of it."""
    if not bench.emulator_budget:
        return ""
    if subject.artifact.quantize_table is not None:
        return (
            "nor in the compiler's interpreter, for which its table of precisions would be needed"
        )
    todo = [scene for scene in group.scenes if not subject.lowered.has(scene.name)]
    saved = [scene for scene in group.scenes if scene not in todo]
    run_reference(saved, group, references)
    if not todo:
        return "reused what the compiler's interpreter gave for it before"
    label = f"validate {subject.label}"
    started = time.monotonic()
    done = 0
    try:
        job = job_of(bench.bundle, subject.artifact)
        own = bench.bundle.weights(subject.artifact.component)
        weights = in_one_file(subject.artifact.component, own, job.graph, bench.progress)
        runner = target.interpret(job, weights, bench.progress)
        if runner is None:
            return ""
        with runner:
            for scene in todo:
                bench.progress(Event(label, done / len(todo)))
                run_reference([scene], group, references)
                seconds, outputs = _timed(runner.infer, group.inputs.load(scene.name))
                subject.lowered.save(scene.name, outputs, seconds)
                done += 1
                if time.monotonic() - started + seconds > bench.emulator_budget:
                    break
    except (InputError, ToolchainError) as e:
        return f"nor in the compiler's interpreter: {e}"
    spent = time.monotonic() - started
    return f"ran {done} of {len(group.scenes)} cases in the compiler's interpreter in {spent:.0f} s"


def too_slow(what: str, seconds: float, bench: Bench) -> Ruling:
    """Return the ruling on what the emulator has no time for: ``not run``, ``not drawn``."""
    return Ruling(
        Verdict.INCOMPLETE,
        f"{what} on the emulator: about {max(1, round(seconds / 60))} min "
        f"(--emulator-budget is {bench.emulator_budget / 60:g} min)",
    )


def _affordable(
    target: Target, artifact: Artifact, todo: Sequence[Scene], bench: Bench
) -> tuple[Sequence[Scene], Ruling]:
    """Choose the cases that fit into the emulator's time, and the ruling on those that do not."""
    if target.cannot_run is not None:
        return [], Ruling(Verdict.INCOMPLETE, f"not run: {target.cannot_run}")
    seconds = target.run_seconds(artifact, bench.folder)
    if seconds is None:
        return todo, NOT_RUN.missing
    affordable = todo[: int(bench.emulator_budget // seconds)] if seconds > 0 else todo
    left_over = (len(todo) - len(affordable)) * seconds
    return affordable, too_slow("not run", left_over, bench)


def run_reference(wanted: Sequence[Scene], group: Group, references: References) -> None:
    """Make and save inputs and reference outputs of these cases, unless they are there."""
    shapes = group.interface.input_shapes(group.batch, group.size)
    for scene in wanted:
        if not group.inputs.has(scene.name):
            origins = references.origins()
            case = make_case(group.component, scene, group.interface, shapes, origins)
            group.inputs.save(scene.name, case.inputs, seconds=0)
        if not group.reference.has(scene.name):
            inputs = group.inputs.load(scene.name)
            seconds, outputs = _timed(
                lambda given: references.infer(group.component, given), inputs
            )
            group.reference.save(scene.name, outputs, seconds)


def _timed(
    infer: Callable[[Mapping[str, Array]], dict[str, Array]], inputs: Mapping[str, Array]
) -> tuple[float, dict[str, Array]]:
    started = time.monotonic()
    outputs = infer(inputs)
    return time.monotonic() - started, outputs
