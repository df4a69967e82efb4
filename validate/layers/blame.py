"""Where a network parts from torch, in one sentence."""

from collections.abc import Sequence

from validate.base import Check, Threshold, Verdict

ABRUPT_DB = 6.0
"""A drop from one place to the next that deserves to be named: half of the precision."""


def first_failure(checks: Sequence[Check]) -> Check | None:
    """The first check that fails, of those in the order of computation."""
    return next((c for c in checks if c.ruling.verdict is Verdict.FAIL), None)


def parting(checks: Sequence[Check], threshold: Threshold) -> str:
    """Name the first place below its floor, what came before it, and the sharpest drop."""
    if not checks:
        return ""
    first = first_failure(checks)
    drop = sharpest_drop(checks, threshold.expected_db)
    words = [_lowest(checks) if first is None else _first(first, checks)]
    if drop is not None and checks[drop] is not first:
        before, after = (_level(check) for check in checks[drop - 1 : drop + 1])
        words.append(f"the sharpest drop is at {checks[drop].case}: {before} to {after}")
    return "; ".join(words)


def _first(first: Check, checks: Sequence[Check]) -> str:
    before = checks[: checks.index(first)]
    agreed = [check.psnr_db for check in before if check.psnr_db is not None]
    since = "nothing comes before it"
    if agreed:
        since = f"all {len(before)} places before it agree (at least {min(agreed):.1f} dB)"
    return f"parts from torch at {first.case} ({first.about}): {first.ruling.sentence}; {since}"


def _lowest(checks: Sequence[Check]) -> str:
    least = min(checks, key=lambda check: check.psnr_db or 0.0)
    return f"no tensor inside is below its floor; the lowest is {least.case}, {_level(least)}"


def sharpest_drop(checks: Sequence[Check], usual_db: float) -> int | None:
    """The index of the place that lies furthest below the lowest before it.

    None unless the drop is abrupt and ends below what is usual.
    """
    lowest, found, most = float("inf"), None, ABRUPT_DB
    for index, check in enumerate(checks):
        level = check.psnr_db
        if level is None:
            continue
        if lowest < float("inf") and level < usual_db and lowest - level > most:
            found, most = index, lowest - level
        lowest = min(lowest, level)
    return found


def _level(check: Check) -> str:
    return "no number" if check.psnr_db is None else f"{check.psnr_db:.1f} dB"
