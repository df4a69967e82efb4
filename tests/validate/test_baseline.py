"""Comparing with an earlier report: what counts as better, worse, and a regression."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.errors import InputError
from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from validate.base import Report, Verdict
from validate.baseline import TOLERANCE_DB, Change, Standing, Trend, compare_with
from validate.validate import ValidateRequest

Go = Callable[..., Report]


@pytest.fixture
def go(place: Place, target: FakeTarget, reference: FakeReference) -> Go:
    def run(**options: object) -> Report:
        request = ValidateRequest(place.artifacts, **options)  # type: ignore[arg-type]
        return judge(request, {"fake": target}, reference)

    return run


def standing(
    psnr: float | None, verdict: Verdict = Verdict.PASS, ms: float | None = None
) -> Standing:
    return Standing(verdict, psnr, "f16", ms)


@pytest.mark.parametrize(
    ("before", "after", "trend", "regression"),
    [
        (standing(50), standing(50 - TOLERANCE_DB / 2), Trend.SAME, False),
        (standing(50), standing(50 - 2 * TOLERANCE_DB), Trend.WORSE, True),
        (standing(50), standing(60), Trend.BETTER, False),
        (standing(140), standing(110), Trend.SAME, False),  # the rounding of fp32
        (standing(50), standing(None, Verdict.FAIL), Trend.WORSE, True),
        (standing(50), standing(51, Verdict.INCOMPLETE), Trend.WORSE, True),
        (standing(20, Verdict.FAIL), standing(50), Trend.BETTER, False),
        (standing(50, ms=10), standing(50, ms=11), Trend.WORSE, False),
        (standing(50, ms=10), standing(50, ms=9), Trend.BETTER, False),
        (None, standing(50), Trend.NEW, False),
        (standing(50), None, Trend.GONE, False),
    ],
)
def test_trends(
    before: Standing | None, after: Standing | None, trend: Trend, regression: bool
) -> None:
    change = Change("unet", "component", before, after)
    assert (change.trend, change.is_regression) == (trend, regression)


def test_a_worse_artifact_is_a_regression(go: Go, place: Place, target: FakeTarget) -> None:
    target.corrupt = lambda x: x.astype(np.float16).astype(np.float32)
    go()
    baseline = place.artifacts / "report.json"
    target.corrupt = lambda x: (x + 3e-3 * np.sin(x * 1e4)).astype(np.float32)
    place.recompile("unet", "v2")
    report = go(baseline=baseline)  # read before it is written over
    assert report.verdict is Verdict.PASS
    assert report.comparison is not None
    assert [change.label for change in report.comparison.regressions] == ["unet 128x64 on fake"]
    saved = json.loads(baseline.read_text())["comparison"]
    assert saved["changes"][1]["trend"] == "worse" and saved["changes"][1]["regression"]
    page = (place.artifacts / "report.html").read_text()
    assert "Since the baseline" in page and "1 beyond the tolerance of 1 dB" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", "schema None"), ('{"schema": 2}', "damaged"), ("[]", "JSON object"), ("x", "readable")],
)
def test_a_file_that_is_no_report(text: str, words: str, go: Go, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        compare_with(go(), path)
