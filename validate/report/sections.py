"""What the parts of the report show: chosen and worded here, laid out by the templates."""

from collections.abc import Sequence
from dataclasses import dataclass

from validate.base import Check, Level, Report, Result, Verdict, worst
from validate.report.courses import Course, course
from validate.report.pictures import Picture, photographs
from validate.store import read_arrays

WORST = 20
"""Tensors inside a network that are listed; the rest can be unfolded."""

ABOUT = {
    Level.EXPORT: "the bundle against its sources, its graphs at other sizes and times",
    Level.COMPONENT: "every output, in several cases",
    Level.LAYER: "the tensors inside",
    Level.TRAJECTORY: "the latent after every step",
    Level.PICTURE: "what they draw together",
}
"""What was looked at, for who has not read the manual."""


@dataclass(frozen=True)
class LevelLine:
    """One level in the summary; `verdict` None where nobody asked for it."""

    level: Level
    about: str
    verdict: str | None
    words: str


def level_lines(report: Report) -> list[LevelLine]:
    """All five, in the order of cause and effect."""
    lines = []
    for level in Level:
        mine = [result for result in report.results if result.level == level]
        if not mine:
            lines.append(LevelLine(level, ABOUT[level], None, "not looked at"))
            continue
        passed = sum(result.verdict is Verdict.PASS for result in mine)
        verdict = worst([result.verdict for result in mine])
        lines.append(LevelLine(level, ABOUT[level], verdict.value, f"{passed} of {len(mine)} pass"))
    return lines


def wrong(report: Report) -> list[Result]:
    """What is to be told first: failures, those inside a network only where nothing else fails."""
    failed = [result for result in report.results if result.verdict is Verdict.FAIL]
    outside = [result for result in failed if result.level != Level.LAYER]
    return outside or failed


@dataclass(frozen=True)
class Shelf:
    """One prompt at one size: the reference's picture, then of every target picture and error."""

    title: str
    pictures: Sequence[Picture]


def gallery(results: Sequence[Result]) -> list[Shelf]:
    """What the artifacts drew, prompt by prompt."""
    shelves: dict[tuple[str, str], list[Picture]] = {}
    for result in results:
        for place, check in enumerate(_drawn(result)):
            assert check.saved is not None and check.reference is not None
            mine = read_arrays(check.saved)[check.output]
            reference = read_arrays(check.reference)[check.output]
            expected, drawn, error = photographs(mine[0], reference[0])
            shelf = shelves.setdefault((check.about, str(result.size)), [])
            shelf[:1] = [Picture("torch, fp32 (the reference)", expected.address)]
            shelf.append(
                Picture(f"{result.target}: {_caption(result, check, place)}", drawn.address)
            )
            shelf.append(Picture(f"{result.target}: {error.title}", error.address))
    return [Shelf(f"{about}, {size}", pictures) for (about, size), pictures in shelves.items()]


def _drawn(result: Result) -> list[Check]:
    if result.level != Level.PICTURE:
        return []
    drawn = [check for check in result.checks if check.saved is not None]
    return sorted(drawn, key=lambda check: check.about)


def _caption(result: Result, check: Check, place: int) -> str:
    words = [check.ruling.sentence]
    if check.measurement is not None and check.measurement.ssim is not None:
        words.append(f"SSIM {check.measurement.ssim:.4f}")
    seen = result.recognition
    if seen is not None:
        prompt = next((i for i, p in enumerate(seen.prompts) if f'"{p}"' in check.about), place)
        words.append(f"seen: {seen.mine[prompt].words}")
    return "; ".join(words)


def trajectories(results: Sequence[Result]) -> list[Course]:
    """PSNR along the steps of every target and size; of several prompts the worst has the dots."""
    found = []
    for result in results:
        if result.level != Level.TRAJECTORY:
            continue
        prompts = dict.fromkeys((result.worst.about, *(check.about for check in result.in_order)))
        runs = [[c for c in result.in_order if c.about == about] for about in prompts]
        title = f"{result.size} on {result.target}: {', '.join(prompts)}"
        drawn = course(result, runs, title, steps=True)
        found += [] if drawn is None else [drawn]
    return found


def interiors(results: Sequence[Result]) -> list[tuple[Result, Course, list[Check]]]:
    """Networks that were looked into: PSNR along the depth, and the places, the worst first."""
    found = []
    for result in results:
        if result.level != Level.LAYER:
            continue
        drawn = course(result, [result.in_order], result.label, steps=False)
        if drawn is not None:
            found.append((result, drawn, [c for c in result.checks if c.position is not None]))
    return found
