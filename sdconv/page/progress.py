"""How far a conversion is as a whole: the stages that were foreseen, weighed by their seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

from sdconv.page.forecast import PlannedStep
from sdconv.page.run_folder import View

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
    planned = [step for step in planned if step.stage != UNSEEN]
    total = sum(step.seconds for step in planned)
    if not view.step or total <= 0:
        return None
    places = {(step.target, step.stage): place for place, step in enumerate(planned)}
    finished = [places.get(_key(*key), -1) for key in view.finished]
    behind = max(finished, default=-1) + 1  # what was skipped on the way is done too
    here, within = places.get(_key(view.step, view.stage), -1), view.done
    if here < behind:
        here, within = behind, 0.0
    done = sum(step.seconds for step in planned[:here])
    done += planned[here].seconds * within if here < len(planned) else 0.0
    pace = elapsed / done if done > TELLING else 1.0
    return Progress(min(done / total, 0.99), (total - done) * pace)


def _key(step: str, stage: str) -> tuple[str, str]:
    """As `PlannedStep` has it; the export's and the judge's stages belong to no target."""
    verb, _, target = step.partition(" ")
    return (target if verb == "compile" else "", stage)
