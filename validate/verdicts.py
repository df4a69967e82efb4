"""The judging step: measure what was saved, and let a judge rule. Nothing is run here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from validate.base import Check, Judge, Link, Result, Ruling, Threshold, Verdict
from validate.metrics import measure
from validate.plan import Group, Subject
from validate.run import NOT_RUN, Outcome
from validate.scenes import Scene


def judge_saved(
    groups: Sequence[Group], outcomes: Mapping[Path, Outcome], judge: Judge
) -> list[Result]:
    """Judge every artifact; cases without saved outputs get their outcome's ruling."""
    results = [
        _result(subject, group, outcomes.get(subject.outputs.folder, NOT_RUN), judge)
        for group in groups
        for subject in group.subjects
    ]
    return [_chained(result, results) for result in results]


def _chained(result: Result, results: Sequence[Result]) -> Result:
    """Say of every check of a lowered network what it is worth, and put the worst first again.

    It is a pass only where the artifact of another size, which the same compiler made of the same
    component in the same precision, was run itself and passed.
    """
    if all(check.link is Link.ARTIFACT for check in result.checks):
        return result
    proven = next((other for other in results if _proves(other, result)), None)
    checks = [
        replace(check, ruling=_chained_ruling(check, result, proven))
        if check.link is Link.LOWERED
        else check
        for check in result.checks
    ]
    return replace(result, checks=tuple(sorted(checks, key=badness, reverse=True)))


def _proves(other: Result, result: Result) -> bool:
    same = (other.component, other.target, other.precision, other.batch) == (
        result.component, result.target, result.precision, result.batch
    )  # fmt: skip
    ran = all(check.link is Link.ARTIFACT for check in other.checks)
    return same and ran and other.verdict is Verdict.PASS


def _chained_ruling(check: Check, result: Result, proven: Result | None) -> Ruling:
    sentence = f"lowered network, in the compiler's interpreter: {check.ruling.sentence}"
    if check.ruling.verdict is not Verdict.PASS:
        return Ruling(check.ruling.verdict, sentence)
    if proven is None:
        return Ruling(Verdict.INCOMPLETE, f"{sentence}; its instructions were not run at any size")
    return Ruling(
        Verdict.PASS,
        f"{sentence}; instructions run at {proven.size}, not at {result.size}",
    )


def _result(subject: Subject, group: Group, outcome: Outcome, judge: Judge) -> Result:
    artifact = subject.artifact
    threshold = judge.threshold(artifact.component, artifact.precision)
    checks: list[Check] = []
    for scene in group.scenes:
        link = _link(scene, subject, group)
        if link is not None:
            checks += _checks(scene, link, subject, group, judge, threshold)
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
        checks=tuple(sorted(checks, key=badness, reverse=True)),
        note=outcome.note,
    )


def _link(scene: Scene, subject: Subject, group: Group) -> Link | None:
    """What was run of a case, if anything was."""
    if not group.reference.has(scene.name):
        return None
    return next((link for link in Link if subject.store(link).has(scene.name)), None)


def _checks(
    scene: Scene, link: Link, subject: Subject, group: Group, judge: Judge, threshold: Threshold
) -> Iterator[Check]:
    store = subject.store(link)
    outputs, reference = store.load(scene.name), group.reference.load(scene.name)
    for port in group.interface.outputs:
        measurement = measure(outputs.get(port.name), reference[port.name])
        yield Check(
            case=scene.name,
            about=scene.about,
            output=port.name,
            ruling=judge.rule(measurement, threshold),
            measurement=measurement,
            seconds=store.seconds(scene.name),
            saved=store.path(scene.name),
            reference=group.reference.path(scene.name),
            link=link,
        )


def badness(check: Check) -> tuple[int, float]:
    """Fail before incomplete before pass; within each by PSNR, what could not be measured first.

    But what was not run says less than what was run in part, and a pass without numbers least.
    """
    verdict = check.ruling.verdict
    if check.measurement is None:
        return verdict.badness, float("inf" if verdict is Verdict.FAIL else "-inf")
    agreement = check.measurement.agreement
    return verdict.badness, float("inf") if agreement is None else -agreement.psnr_db
