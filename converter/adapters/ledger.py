"""The ledger: what became of every key of an adapter file, and why."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What became of a key."""

    USED = "used"
    UNUSED = "unused"
    WRONG_SHAPE = "wrong_shape"
    WRONG_FAMILY = "wrong_family"
    NOT_EXPORTED = "not_exported"
    """It is for what this export leaves out, a component or a layer past the hidden state that
    is taken: no mistake."""


LEFT_OUT = (Status.UNUSED, Status.WRONG_SHAPE, Status.WRONG_FAMILY)
"""What a fitting adapter has no key of."""


@dataclass
class Ledger:
    """Key -> (status, reason)."""

    entries: dict[str, tuple[Status, str]] = field(default_factory=dict)

    def add(self, keys: Iterable[str], status: Status, reason: str) -> None:
        """Enter keys."""
        self.entries.update(dict.fromkeys(keys, (status, reason)))

    def keys(self, *statuses: Status) -> list[str]:
        """The keys of these statuses, in the order entered."""
        return [key for key, (status, _) in self.entries.items() if status in statuses]

    def first(self, count: int, *statuses: Status) -> str:
        """Name the first keys of these statuses with their reasons."""
        keys = self.keys(*statuses)
        named = ", ".join(f"{key} ({self.entries[key][1]})" for key in keys[:count])
        return named + (", ..." if len(keys) > count else "")

    def to_json(self) -> dict[str, Any]:
        """As in `bundle.json`: the number used, and for each other status reason -> keys."""
        record: dict[str, Any] = {s.value: {} for s in Status if s is not Status.USED}
        for key, (status, reason) in self.entries.items():
            if status is not Status.USED:
                record[status.value].setdefault(reason, []).append(key)
        counts = Counter(status for status, _ in self.entries.values())
        return {"total": len(self.entries), "used": counts[Status.USED], **record}
