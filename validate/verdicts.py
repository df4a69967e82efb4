"""The judging step: measure what was saved, and let a judge rule. Nothing is run here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from validate.base import Check, Judge, Result, Threshold
from validate.metrics import measure
from validate.plan import Group, Subject
from validate.run import NOT_RUN, Outcome
from validate.scenes import Scene


def judge_saved(
    groups: Sequence[Group], outcomes: Mapping[Path, Outcome], judge: Judge
) -> list[Result]:
    """Judge every artifact; cases without saved outputs get their outcome's ruling."""
    return [
        _result(subject, group, outcomes.get(subject.outputs.folder, NOT_RUN), judge)
        for group in groups
        for subject in group.subjects
    ]


def _result(subject: Subject, group: Group, outcome: Outcome, judge: Judge) -> Result:
    artifact = subject.artifact
    threshold = judge.threshold(artifact.component, artifact.precision)
    checks: list[Check] = []
    for scene in group.scenes:
        if subject.outputs.has(scene.name) and group.reference.has(scene.name):
            checks += _checks(scene, subject, group, judge, threshold)
        else:
            missing = outcome.missing
            checks.append(Check(scene.name, scene.about, group.interface.outputs[0].name, missing))
    return Result(
        component=artifact.component,
        target=artifact.target,
        chip=artifact.chip,
        size=artifact.size,
        batch=artifact.batch,
        precision=artifact.precision,
        level=judge.level,
        path=artifact.path,
        threshold=threshold,
        checks=tuple(sorted(checks, key=_badness, reverse=True)),
        note=outcome.note,
    )


def _checks(
    scene: Scene, subject: Subject, group: Group, judge: Judge, threshold: Threshold
) -> Iterator[Check]:
    outputs, reference = subject.outputs.load(scene.name), group.reference.load(scene.name)
    for port in group.interface.outputs:
        measurement = measure(outputs.get(port.name), reference[port.name])
        yield Check(
            case=scene.name,
            about=scene.about,
            output=port.name,
            ruling=judge.rule(measurement, threshold),
            measurement=measurement,
            seconds=subject.outputs.seconds(scene.name),
            saved=subject.outputs.path(scene.name),
            reference=group.reference.path(scene.name),
        )


def _badness(check: Check) -> tuple[int, float]:
    """Fail before incomplete before pass; within each, what could not be measured, then PSNR."""
    agreement = None if check.measurement is None else check.measurement.agreement
    psnr = float("-inf") if agreement is None else agreement.psnr_db
    return check.ruling.verdict.badness, -psnr
