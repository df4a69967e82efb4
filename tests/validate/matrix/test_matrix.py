"""The precision matrix, from the command line: cells, what leads, what is recommended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.bundle import Bundle
from converter.progress import Progress
from converter.weights import Array, WeightSource
from sdconv.main import run
from sdconv.recipe.reading import read_recipe
from targets.base import Artifact, QuantizeTable, Runner, Skeleton, ToolchainError
from targets.onnxruntime import OnnxRuntimeRunner, OnnxRuntimeTarget
from targets.registry import TARGETS
from tests.validate.schemas import problems
from validate.matrix import matrix
from validate.matrix.report import Label, Mark, labels_of

SCHEMA = Path(matrix.__file__).with_name("matrix.schema.json")
NOISE = {"f32": 0.0, "f16": 1e-3, "bf16": 2e-3, "w4f16": 8e-3}
"""Of the peak: about 60, 54 and 42 dB."""
MILLISECONDS = {"f32": 8.0, "f16": 4.0, "bf16": 4.0, "w4f16": 2.0}


class NoisyRunner(OnnxRuntimeRunner):
    noise: float

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        return {
            name: array + np.abs(array).max() * self.noise * rng.standard_normal(array.shape, "f4")
            for name, array in super().infer(inputs).items()
        }


class Grades(OnnxRuntimeTarget):
    """Every precision is quicker than the one before it, and worse; one needs calibration."""

    name = "grades"
    precisions = ("f32", "f16", "bf16", "w4f16", "int8", "w8f16")

    def needs_calibration(self, precision: str, table: QuantizeTable | None) -> bool:
        return precision == "int8"

    def bind(
        self,
        skeletons: Sequence[Skeleton],
        weights: WeightSource,
        folder: Path,
        progress: Progress,
    ) -> list[Artifact]:
        if skeletons[0].job.precision == "w8f16":
            raise ToolchainError("the compiler knows no w8f16 after all")
        made = super().bind(skeletons, weights, folder, progress)
        return [replace(a, predicted_ms=MILLISECONDS[a.precision]) for a in made]

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        runner = NoisyRunner(folder / artifact.path)
        runner.noise = NOISE[artifact.precision]
        return runner


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "grades", Grades)


def test_the_cheapest_that_reaches_the_floor_is_recommended(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "matrix"
    words = ["matrix", "-n", str(small_bundle.folder), "--target", "grades", "--sizes", "64x64",
             "--components", "text_encoder", "-o", str(output)]  # fmt: skip
    assert run([*words, "--floor", "50dB"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "left out: int8: needs --calibration" in printed
    assert "the cheapest that reaches 50 dB: sdconv compile" in printed
    assert "--precision text_encoder=f16" in printed
    cells = {cell["precision"]: cell for cell in _cells(output)}
    assert [*cells] == ["f32", "f16", "bf16", "w4f16", "w8f16"]
    assert [p for p, cell in cells.items() if cell["recommended"]] == ["f16"]
    # bf16 takes as long as f16 and is worse; all others are the best of something.
    assert [p for p, cell in cells.items() if cell["leads"]] == ["f32", "f16", "w4f16"]
    assert [cell["ms"] for cell in cells.values()] == [8.0, 4.0, 4.0, 2.0, None]
    assert cells["w8f16"]["verdict"] == "fail"
    assert "knows no w8f16" in cells["w8f16"]["sentence"]
    levels = [cells[p]["psnr_db"] for p in NOISE]
    assert levels == sorted(levels, reverse=True) and levels[0] > 110
    (recommended,) = read_recipe(output / "recipe.yaml").compile
    assert recommended.precision == {"text_encoder": "f16"}
    page = (output / "matrix.html").read_text()
    assert "<svg" in page and "text_encoder=f16" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    # Without a floor what its precision needs is enough.
    assert run(words) == 0
    assert [c["precision"] for c in _cells(output) if c["recommended"]] == ["w4f16"]
    # No precision is that good.
    assert run([*words, "--floor", "400"]) == 1
    assert "text_encoder: no precision reaches 400 dB; the best is f32" in capsys.readouterr().out


def _cells(output: Path) -> list[dict[str, Any]]:
    saved = json.loads((output / "matrix.json").read_text())
    assert problems(saved, SCHEMA) == []
    cells: list[dict[str, Any]] = saved["cells"]
    return cells


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--floor", "many"], "write a PSNR in decibels, such as 40dB"),
        (["--floor", "nan"], "write a PSNR in decibels"),
        (["--precisions", "f8"], "target grades has f32, f16"),
        (["--components", "unnet"], "no component 'unnet'"),
        (["--precisions", ""], "--precisions: nothing is named"),
        (["--components", ","], "--components: nothing is named"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    more: list[str],
    words: str,
    small_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "matrix"
    given = ["matrix", "-n", str(small_bundle.folder), "--target", "grades", "--sizes", "64x64"]
    assert run([*given, "-o", str(output), *more]) == 2
    assert words in capsys.readouterr().err
    assert not output.exists()


def test_marks_that_lie_in_each_other_share_a_label() -> None:
    places = {
        "f16": (50.0, 80.0),
        "w8f16": (60.0, 85.0),
        "bf16": (50.0, 120.0),
        "f32": (300.0, 80.0),
    }
    marks = [Mark(x, y, name, "other", "") for name, (x, y) in places.items()]
    assert labels_of(marks) == [
        Label(60.0, 80.0, "f16, w8f16"),
        Label(50.0, 120.0, "bf16"),
        Label(300.0, 80.0, "f32"),
    ]
