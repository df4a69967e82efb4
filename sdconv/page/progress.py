"""How far a conversion is as a whole: the stages that were foreseen, weighed by their seconds."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sdconv.page.forecast import PlannedStep
from sdconv.page.run_folder import View

Key = tuple[str, str]
"""A step and a stage, as a run reports them."""

UNSEEN = "start"
"""The stage of a plan that nobody reports: it is over before there is anybody to do it."""

TELLING = 5.0
"""Seconds of work after which this machine's own speed is known well enough."""


@dataclass(frozen=True)
class Progress:
    """`done` of the whole in [0, 1]; `left` in seconds, None where it cannot be told."""

    done: float
    left: float | None = None


def progress(planned: Sequence[PlannedStep], view: View, elapsed: float) -> Progress | None:
    """Where a run is after so many seconds; None where nothing was foreseen."""
    seconds: dict[Key, float] = defaultdict(float)  # two targets may judge stages of one name
    for step in planned:
        if step.stage != UNSEEN:
            seconds[_step(step), step.stage] += step.seconds
    total = sum(seconds.values())
    if not view.step or total <= 0:
        return None
    passed = {step for step, _ in view.finished} - {view.step}
    over = {key for key in seconds if key[0] in passed or key in view.finished}
    done = sum(seconds[key] for key in over)
    here = (view.step, view.stage)
    done += seconds.get(here, 0.0) * view.done if here not in over else 0.0
    pace = elapsed / done if done > TELLING else 1.0
    return Progress(min(done / total, 0.99), (total - done) * pace)


def _step(planned: PlannedStep) -> str:
    """The step of a run that reports this stage."""
    if planned.target:
        return f"compile {planned.target}"
    return "validate" if planned.stage.startswith("validate ") else "export"
