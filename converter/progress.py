"""How long work tells whoever waits where it is: one callable, no library."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One step of long work.

    `stage` names what is being done ("export unet"), `done` is the finished fraction of that
    stage in [0, 1], and `note` is a line worth keeping ("reused: nothing changed").
    """

    stage: str
    done: float
    note: str = ""


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore the event: the default where nobody watches."""
    del event
