"""report.json is what report.schema.json says, whatever was looked at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.sampling import PictureRequest
from targets.base import Conformance
from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from tests.validate.schemas import problems
from validate.overrides import Override
from validate.report import html
from validate.validate import ValidateRequest

Go = Callable[..., Any]

SCHEMA = Path(html.__file__).with_name("report.schema.json")


@pytest.fixture
def go(place: Place, target: FakeTarget, reference: FakeReference) -> Go:
    def run(**options: Any) -> Any:
        judge(ValidateRequest(place.artifacts, **options), {"fake": target}, reference)
        return json.loads((place.artifacts / "report.json").read_text())

    return run


def test_everything_at_once(go: Go, target: FakeTarget, place: Place) -> None:
    """Pictures, attributions, a baseline, a recipe's own thresholds, a file that does not load."""
    target.corrupt, target.spoilt = (lambda x: x + np.float32(0.3)), "unet"
    target.checked = [Conformance("unet", "fake", "unet.bin", "sd-lcm-tpu", "tool", ("a fault",))]
    go()
    report = go(
        picture=PictureRequest("a red circle", steps=2, guidance=1.0),
        overrides=(Override("f16", "a preview is enough", psnr_db=20),),
        baseline=place.artifacts / "report.json",
        attribute=True,
    )
    assert problems(report, SCHEMA) == []
    assert report["attributions"] and report["comparison"]["changes"]
    assert {result["level"] for result in report["results"]} >= {"component", "picture"}


@pytest.mark.parametrize("output", [np.nan, np.inf])
def test_what_has_no_number_is_null(output: float, go: Go, target: FakeTarget) -> None:
    target.corrupt = lambda x: np.full_like(x, output)
    report = go()
    assert problems(report, SCHEMA) == []
    assert report["results"][0]["cases"][0]["psnr_db"] is None


def test_what_was_not_run(go: Go, target: FakeTarget) -> None:
    target.installed = False
    assert problems(go(), SCHEMA) == []


def test_the_schema_refuses(go: Go) -> None:
    report = go()
    wrong = {**report, "verdict": "good", "results": [{**report["results"][0], "more": 1}]}
    del wrong["created"]
    found = "\n".join(problems(wrong, SCHEMA))
    assert "$: 'created' is a required property" in found
    assert "$.results[0]: Additional properties are not allowed ('more'" in found
    assert "$.verdict: 'good' is not one of" in found
