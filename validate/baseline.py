"""What got better and what got worse since an earlier report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from converter.errors import InputError
from converter.files import read_json
from validate.base import Report, Result, Verdict

TOLERANCE_DB = 1.0
"""How much PSNR may be lost before it is a regression. The same artifact on the same machine gives
the same number; another processor sums in another order, which moves half precision by less."""

CEILING_DB = 100.0
"""Above it two numbers are equal: what differs there is the rounding of fp32 alone."""

SCHEMAS = (1, 2)
"""Of the JSON reports that can be compared with."""

Key = tuple[str, str, str, str | None, int]
"""Level, component, target, size, batch: what stays the same when a precision changes."""


class Trend(StrEnum):
    """What became of a result."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "same"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True)
class Standing:
    """Where a result stood: its verdict, PSNR in dB (None: no number), precision, milliseconds."""

    verdict: Verdict
    psnr_db: float | None
    precision: str
    ms: float | None


@dataclass(frozen=True)
class Change:
    """One result then and now; None where there was or is none."""

    label: str
    level: str
    before: Standing | None
    after: Standing | None

    @property
    def trend(self) -> Trend:
        """By the verdict, then by PSNR, then by time."""
        if self.before is None or self.after is None:
            return Trend.NEW if self.before is None else Trend.GONE
        worse = self.after.verdict.badness - self.before.verdict.badness
        gain = _level(self.after) - _level(self.before)
        if worse or abs(gain) > TOLERANCE_DB:
            return Trend.WORSE if worse > 0 or (not worse and gain < 0) else Trend.BETTER
        slower = _ratio(self.before.ms, self.after.ms)
        if abs(slower - 1) > 0.01:
            return Trend.WORSE if slower > 1 else Trend.BETTER
        return Trend.SAME

    @property
    def is_regression(self) -> bool:
        """Whether the verdict or the PSNR got worse; time alone is the user's to weigh."""
        if self.before is None or self.after is None:
            return False
        worse = self.after.verdict.badness - self.before.verdict.badness
        return worse > 0 or _level(self.before) - _level(self.after) > TOLERANCE_DB


@dataclass(frozen=True)
class Comparison:
    """All results then and now. `created` is when the baseline was made."""

    baseline: Path
    created: str
    changes: Sequence[Change]

    def of(self, trend: Trend) -> list[Change]:
        """The changes of one kind."""
        return [change for change in self.changes if change.trend is trend]

    @property
    def regressions(self) -> list[Change]:
        """What got worse beyond the tolerance."""
        return [change for change in self.changes if change.is_regression]

    @property
    def sentence(self) -> str:
        """All of it in words."""
        counts = ", ".join(f"{len(found)} {trend}" for trend in Trend if (found := self.of(trend)))
        return f"since {self.created}: {counts or 'nothing to compare'}"


def compare_with(report: Report, baseline: Path) -> Comparison:
    """Compare with an earlier `report.json`; raises InputError for a file that is none."""
    data = read_json(baseline, "a report.json of 'sdconv validate'")
    if data.get("schema") not in SCHEMAS:
        raise InputError(
            f"{baseline}: schema {data.get('schema')!r} is not known here: validate again with "
            "this version to make a new baseline"
        )
    try:
        before = _standings_of_json(data)
        created = str(data["created"])
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{baseline}: damaged, or no report of 'sdconv validate' ({e})") from e
    after = _standings(report)
    changes = [
        Change(_label(key), key[0], before.get(key), after.get(key)) for key in {**before, **after}
    ]
    return Comparison(baseline.absolute(), created, changes)


def _standings(report: Report) -> dict[Key, Standing]:
    times = {} if report.latency is None else {
        (a.component, a.target, str(a.size), a.batch): a.predicted_ms
        for a in report.latency.artifacts
    }  # fmt: skip
    return {
        _key(result): Standing(
            result.verdict,
            result.worst.psnr_db,
            result.precision,
            times.get((result.component, result.target, str(result.size), result.batch)),
        )
        for result in report.results
    }


def _key(result: Result) -> Key:
    size = None if result.size is None else str(result.size)
    return result.level, result.component, result.target, size, result.batch


def _standings_of_json(data: Mapping[str, Any]) -> dict[Key, Standing]:
    artifacts = (data["latency"] or {}).get("artifacts", ())
    times = {(a["component"], a["target"], a["size"], a["batch"]): a["ms"] for a in artifacts}
    found = {}
    for result in data["results"]:
        place = (result["component"], result["target"], result["size"], result["batch"])
        ms = times.get(place)
        found[(result["level"], *place)] = Standing(
            Verdict(result["verdict"]), result["psnr_db"], result["precision"], ms
        )
    return found


def _label(key: Key) -> str:
    _, component, target, size, batch = key
    batches = f"batch {batch}" if batch > 1 else None
    return " ".join(str(p) for p in (component, size, batches, "on", target) if p)


def _level(standing: Standing) -> float:
    return min(CEILING_DB, standing.psnr_db or 0.0)


def _ratio(before: float | None, after: float | None) -> float:
    return after / before if before and after else 1.0
