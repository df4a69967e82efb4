"""The miniature's UNet in int8-mixed, by the compiler's interpreter: still a UNet that draws."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.sophgo_int8 import int8_job, lowered_unet
from examples.mini.pictures import Scene
from examples.mini.recognise import recognise
from examples.mini.score import FILES, QUICK, RECIPES, SQUARE
from runtime.staging import open_reference
from sdconv.main import run
from targets.sophgo.toolchain import TpuMlir
from validate.base import Verdict
from validate.judge import PictureJudge
from validate.metrics import measure
from validate.references import open_torch_reference
from validate.thresholds import picture_threshold


@pytest.mark.slow
def test_a_picture_is_drawn_as_without(tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    """Ranges from a trajectory of another caption and seed."""
    del tpu_mlir
    bundle = RECIPES["LCM-LoRA, 4 steps"].export(FILES, tmp_path / "bundle")
    words = ["calibrate", str(bundle.folder), "--sizes", str(SQUARE), "-o", str(tmp_path / "data")]
    assert run([*words, "-p", "a white star on a black background"]) == 0
    scene = Scene("circle", "red", "blue")
    asked = replace(QUICK, prompt=scene.caption(), seed=1)
    with open_reference(bundle, SQUARE, open_torch_reference) as pipeline:
        wanted = pipeline.draw(asked).picture
    with (
        lowered_unet(bundle, int8_job(bundle, tmp_path / "data")) as unet,
        open_reference(
            bundle, SQUARE, lambda b, c: unet if c == "unet" else open_torch_reference(b, c)
        ) as pipeline,
    ):
        picture = pipeline.draw(asked).picture
    assert min(unet.psnr_db) > 40
    assert recognise(picture).shows(scene)
    measured = measure(picture.clip(-1, 1), wanted.clip(-1, 1))
    ruling = PictureJudge().rule(measured, picture_threshold("int8-mixed"))
    assert ruling.verdict is Verdict.PASS
