"""The picture and the trajectory of what a target's artifacts draw together, judged.

Both sides run the same sampling loop from the same noise with the same tokens, so what they draw
differs by the artifacts alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from validate.attribution import Attribution, attribute, compare, needs_attribution, shown
from validate.base import (
    TOGETHER,
    Check,
    Judge,
    Level,
    Recognition,
    Result,
    Ruling,
    Threshold,
    Verdict,
)
from validate.recognition import Recogniser, recognise_all
from validate.run import NOT_RUN
from validate.sittings import REFERENCE, Sitting
from validate.studio import PICTURE_PORT, Studio
from validate.trajectory import parting, step_checks
from validate.verdicts import badness


@dataclass(frozen=True)
class Drawn:
    """What was found out about what artifacts draw together."""

    results: Sequence[Result]
    attributions: Sequence[Attribution]


@dataclass(frozen=True)
class Gallery:
    """How sittings are judged: the judge of each level, a recogniser, and whether to attribute.

    With `attribute` every sitting is attributed to its components, else those that fail.
    """

    judges: Mapping[Level, Judge]
    recogniser: Recogniser | None = None
    attribute: bool = False


def draw_pictures(
    sittings: Iterable[Sitting], gallery: Gallery, levels: Sequence[Level], studio: Studio | None
) -> Drawn:
    """Draw what is not saved, and judge. Without a studio nothing is drawn."""
    groups: dict[tuple[str, str], list[Sitting]] = {}
    for sitting in sittings:
        groups.setdefault((sitting.target, str(sitting.size)), []).append(sitting)
    results: list[Result] = []
    attributions: list[Attribution] = []
    for group in groups.values():
        # The picture first: it has the emulator's time for all of it or for nothing.
        wanted = [level for level in reversed(TOGETHER) if level in levels]
        judged = [_result(group, gallery, level, studio) for level in wanted]
        for result in reversed(judged):
            found = _attributed(result, group, gallery, studio)
            results.append(replace(result, blame=_blame(result, found)))
            attributions += [] if found is None else [found]
    return Drawn(results, attributions)


def _result(
    group: Sequence[Sitting], gallery: Gallery, level: Level, studio: Studio | None
) -> Result:
    judge, first = gallery.judges[level], group[0]
    precision = lowest_precision(first, judge)
    threshold = judge.threshold(level, precision)
    checks: list[Check] = []
    for sitting in group:
        missing = None if studio is None else studio.draw(sitting, sitting.everyone, level)
        missing = missing or NOT_RUN.missing
        if level is Level.TRAJECTORY:
            checks += step_checks(sitting, judge, threshold, missing)
        else:
            checks.append(_picture_check(sitting, judge, threshold, missing))
    seen = None
    if level is Level.PICTURE and gallery.recogniser is not None:
        seen = _recognition(group, gallery.recogniser)
    artifacts = first.artifacts.values()
    return Result(
        component=level,
        target=first.target,
        chip=next(iter(artifacts)).chip,
        size=first.size,
        batch=1,
        precision=precision,
        level=level,
        path=", ".join(dict.fromkeys(a.path for a in artifacts)),
        threshold=threshold,
        checks=tuple(sorted(checks, key=badness, reverse=True)),
        note="",
        recognition=seen,
    )


def lowest_precision(sitting: Sitting, judge: Judge) -> str:
    """The precision of the artifacts, the one with the lowest floor where they differ."""
    used = {artifact.precision for artifact in sitting.artifacts.values()}
    floors = {precision: judge.threshold(Level.PICTURE, precision) for precision in used}
    return min(used, key=lambda p: (floors[p].psnr_db, floors[p].expected_db, p))


def _picture_check(sitting: Sitting, judge: Judge, threshold: Threshold, missing: Ruling) -> Check:
    check = Check(sitting.case, sitting.request.sentence, PICTURE_PORT, missing)
    mine, reference = (sitting.store(cast, Level.PICTURE) for cast in (sitting.everyone, REFERENCE))
    if not (mine.has(sitting.case) and reference.has(sitting.case)):
        return check
    measurement = compare(sitting, sitting.everyone, Level.PICTURE)
    return replace(
        check,
        ruling=judge.rule(measurement, threshold),
        measurement=measurement,
        seconds=mine.seconds(sitting.case),
        saved=mine.path(sitting.case),
        reference=reference.path(sitting.case),
    )


def _recognition(group: Sequence[Sitting], recogniser: Recogniser) -> Recognition | None:
    """What is seen in the pictures; None before they are drawn."""
    level = Level.PICTURE
    ready = [
        sitting
        for sitting in group
        if all(sitting.store(c, level).has(sitting.case) for c in (sitting.everyone, REFERENCE))
    ]
    if not ready:
        return None
    prompts = [sitting.request.prompt for sitting in ready]
    mine = [shown(sitting, sitting.everyone, level)[0] for sitting in ready]
    reference = [shown(sitting, REFERENCE, level)[0] for sitting in ready]
    return recognise_all(recogniser, prompts, mine, reference)


def _attributed(
    result: Result, group: Sequence[Sitting], gallery: Gallery, studio: Studio | None
) -> Attribution | None:
    """Who is to blame for the worst sitting, where that is asked for or worth knowing."""
    if result.worst.measurement is None:
        return None
    if not gallery.attribute and not needs_attribution(result):
        return None
    about = result.worst.about
    sitting = next(s for s in group if s.request.sentence == about)
    return attribute(sitting, Level(result.level), result.worst, studio)


def _blame(result: Result, attribution: Attribution | None) -> str:
    words = []
    if result.level == Level.TRAJECTORY:
        same = [check for check in result.in_order if check.about == result.worst.about]
        words.append(parting(same, result.threshold.psnr_db))
    if attribution is not None and result.verdict is not Verdict.PASS:
        words.append(attribution.sentence)
    return "; ".join(filter(None, words))
