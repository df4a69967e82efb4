"""Where a network parts from torch, in one sentence."""

from collections.abc import Sequence

from validate.base import Check, Verdict

ABRUPT_DB = 6.0
"""A drop from one place to the next that deserves to be named: half of the precision."""


def first_failure(checks: Sequence[Check]) -> Check | None:
    """The first check that fails, of those in the order of computation."""
    return next((c for c in checks if c.ruling.verdict is Verdict.FAIL), None)


def parting(checks: Sequence[Check]) -> str:
    """Name the first place below its floor, what came before it, and the sharpest drop."""
    if not checks:
        return ""
    first = first_failure(checks)
    words = []
    if first is None:
        least = min(checks, key=lambda check: check.psnr_db or 0.0)
        words.append(f"no tensor inside is below its floor; lowest {least.case} {_level(least)}")
    else:
        before = checks[: checks.index(first)]
        agreed = [check.psnr_db for check in before if check.psnr_db is not None]
        since = f"; all {len(before)} before it agree (at least {min(agreed):.1f} dB)"
        words.append(
            f"parts from torch at {first.case} ({first.about}): {first.ruling.sentence}"
            + (since if agreed else "; nothing comes before it")
        )
    drop = sharpest_drop(checks)
    if drop is not None and checks[drop] is not first:
        before_it = checks[drop - 1]
        words.append(
            f"sharpest drop at {checks[drop].case}: {_level(before_it)} to {_level(checks[drop])}"
        )
    return "; ".join(words)


def sharpest_drop(checks: Sequence[Check]) -> int | None:
    """The index of the place that lies furthest below the lowest before it, if it is abrupt."""
    lowest, found, most = float("inf"), None, ABRUPT_DB
    for index, check in enumerate(checks):
        if check.psnr_db is None:
            continue
        if lowest < float("inf") and lowest - check.psnr_db > most:
            found, most = index, lowest - check.psnr_db
        lowest = min(lowest, check.psnr_db)
    return found


def _level(check: Check) -> str:
    return "no number" if check.psnr_db is None else f"{check.psnr_db:.1f} dB"
