"""Every fault planted in the miniature is caught, and blamed on the right component and place."""

from pathlib import Path

import pytest

from examples.mini.faults import FAULTS, RECOGNISER, SCENE, Bench, Fault, caught
from examples.mini.score import QUICK
from runtime.sampling import PictureRequest
from validate.base import Level, Verdict

pytestmark = pytest.mark.slow

EVERYWHERE = [fault for fault in FAULTS if fault.target == "onnxruntime"]
"""The one that needs a chip's compiler is in tests/targets."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.prepare(tmp_path_factory.mktemp("mini"))


def scratch(bench: Bench, folder: Path) -> Bench:
    """The same bench with a folder of its own to plant in."""
    return Bench(bench.bundle, bench.artifacts, folder)


def test_nothing_is_wrong_with_the_miniature(bench: Bench) -> None:
    picture = PictureRequest(**{**QUICK.__dict__, "prompt": SCENE.caption()})
    levels = tuple(Level)
    report = bench.judge(bench.artifacts, picture=picture, recogniser=RECOGNISER, levels=levels)
    assert caught(report) == ([], "")
    assert report.verdict is Verdict.PASS
    assert {result.level for result in report.results} == set(Level)


@pytest.mark.parametrize("fault", EVERYWHERE, ids=lambda f: f"{f.name}, {f.where}")
def test_it_is_caught_and_blamed(fault: Fault, bench: Bench, tmp_path: Path) -> None:
    report = fault.judge(scratch(bench, tmp_path))
    levels, words = caught(report)
    assert report.verdict is Verdict.FAIL
    assert f"{fault.level}: {fault.component}" in levels
    assert fault.words in words
    # Nobody else is blamed.
    others = {level.partition(": ")[2] for level in levels} - {fault.component}
    assert others <= fault.also
