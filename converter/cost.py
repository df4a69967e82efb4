"""What a step of work costs on a machine: memory, disk, time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Bytes and seconds of one step, predicted.

    `memory` is the peak of what its processes hold together. `written` is what it leaves where
    its results go, `cached` what it leaves in the cache folder, `temporary` what it needs there
    besides while it runs. `seconds` are for a machine like the one measured.
    """

    memory: int = 0
    written: int = 0
    cached: int = 0
    temporary: int = 0
    seconds: float = 0.0
