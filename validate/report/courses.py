"""The geometry of PSNR along a course: the steps of a trajectory, or the depth of a network.

`courses.html.j2` draws it. Coordinates are SVG user units, y downwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from validate.base import Check, Result, Verdict
from validate.report.plots import Tick

WIDTH, HEIGHT = 720.0, 220.0
"""Of the drawing area."""

TOP_DB = 160.0
"""What is higher is drawn there: in fp32 two tensors may be equal."""

DOTS = 60
"""Points up to which each is drawn; of more, those that fail."""


@dataclass(frozen=True)
class Dot:
    """One check: where it lies, whether it passes, and what it says."""

    x: float
    y: float
    verdict: str
    title: str


@dataclass(frozen=True)
class Course:
    """One or several lines over the same places.

    `lines` are SVG paths, broken where there is no number. `dots` and `mark`, the first that fails
    (None: none does), are those of the first line.
    """

    title: str
    about: str
    verdict: str
    lines: Sequence[str]
    dots: Sequence[Dot]
    mark: Dot | None
    floor: float
    floor_label: str
    levels: Sequence[Tick]
    places: Sequence[Tick]


def course(
    result: Result, runs: Sequence[Sequence[Check]], title: str, *, steps: bool
) -> Course | None:
    """Lay out runs of checks in their order, the first with dots.

    None of fewer than two places, which are no course.
    """
    first = runs[0] if runs else ()
    last = len(first) - 1
    if last < 1:
        return None
    levels = [check.psnr_db for run in runs for check in run]
    top = _top(levels, result.threshold.psnr_db)

    def x(place: float) -> float:
        return round(place / last * WIDTH, 1)

    def y(level: float | None) -> float:
        return round((1 - float(np.clip((level or 0.0) / top, 0, 1))) * HEIGHT, 1)

    dots = [
        Dot(
            x(index),
            y(check.psnr_db),
            check.ruling.verdict.value,
            f"{check.case}: {check.ruling.sentence}",
        )
        for index, check in enumerate(first)
    ]
    failing = [dot for dot in dots if dot.verdict == Verdict.FAIL]
    lines = []
    for run in runs:
        gaps = [check.psnr_db is None for check in run]
        lines.append(
            "".join(
                f"{'M' if index == 0 or gaps[index - 1] else 'L'}{x(index)},{y(check.psnr_db)}"
                for index, check in enumerate(run)
                if not gaps[index]
            )
        )
    marks = np.arange(0, top + 1, 20 * _coarse(top))
    return Course(
        title=title,
        about=result.blame,
        verdict=result.verdict.value,
        lines=lines,
        dots=dots if len(dots) <= DOTS else failing,
        mark=failing[0] if failing else None,
        floor=y(result.threshold.psnr_db),
        floor_label=f"{result.threshold.psnr_db:g} dB needed",
        levels=[Tick(y(level), f"{level:g}") for level in marks],
        places=_places(first, x, steps=steps),
    )


def _top(levels: Sequence[float | None], floor: float) -> float:
    highest = max([min(TOP_DB, level) for level in levels if level is not None] + [floor + 10, 40])
    return float(20 * np.ceil(highest / 20))


def _coarse(top: float) -> int:
    """Not more than six marks."""
    return 1 if top <= 120 else 2


def _places(checks: Sequence[Check], x: Callable[[float], float], *, steps: bool) -> list[Tick]:
    """Marks below: every step by its number, or of a network the blocks that it is made of."""
    if steps:
        every = -(-len(checks) // 20)
        return [Tick(x(i), str(i + 1)) for i in range(0, len(checks), every)]
    blocks: dict[str, int] = {}
    for index, check in enumerate(checks):
        name = ".".join(check.case.split(".")[: 2 if "block" in check.case else 1])
        blocks.setdefault(name, index)
    shown: list[Tick] = []
    for name, index in blocks.items():
        short = name.replace("decoder.", "").replace("encoder.", "").replace("_blocks", "")
        if not shown or x(index) - shown[-1].at > 62:
            shown.append(Tick(x(index), short))
    return shown
