"""Thresholds of a recipe's own, in the place of the usual ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from validate.base import Level, Threshold

LIMITS = ("psnr_db", "expected_db", "cosine", "gain", "max_abs_error")
"""The fields of a `Threshold` that can be replaced."""


@dataclass(frozen=True)
class Override:
    """Other limits for one precision at one level; None leaves a limit as it is.

    `component` None means all of them. `reason` says why, and stands in the report.
    """

    precision: str
    reason: str
    level: Level = Level.COMPONENT
    component: str | None = None
    psnr_db: float | None = None
    expected_db: float | None = None
    cosine: float | None = None
    gain: float | None = None
    max_abs_error: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Those that are replaced."""
        given = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in given.items() if value is not None}

    def applies(self, level: Level, component: str, precision: str) -> bool:
        """Whether it is meant for that."""
        wanted = (self.level, self.component or component, self.precision)
        return wanted == (level, component, precision)


def overridden(
    usual: Threshold, overrides: Sequence[Override], level: Level, component: str
) -> Threshold:
    """The threshold as the last override that applies has it; the usual one where none does."""
    found = [o for o in overrides if o.applies(level, component, usual.precision)]
    if not found:
        return usual
    limits: dict[str, Any] = found[-1].limits
    before = ", ".join(f"{name} {getattr(usual, name)}" for name in limits)
    return replace(
        usual,
        **limits,
        reason=f"The recipe's own: {found[-1].reason} (usual: {before})",
        overridden=True,
    )
