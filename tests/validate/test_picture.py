"""The picture level over numpy networks: drawn once, judged, never passed unseen."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from converter.errors import InputError
from converter.weights import Array
from runtime.sampling import PictureRequest
from targets.manifest import Manifest
from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from validate.base import Report, Result, Verdict
from validate.validate import ValidateRequest

Go = Callable[..., Report]
QUICK = PictureRequest("a red circle", scheduler="lcm", steps=2, guidance=1.0)


@pytest.fixture
def go(place: Place, target: FakeTarget, reference: FakeReference) -> Go:
    def run(picture: PictureRequest = QUICK, **options: object) -> Report:
        request = ValidateRequest(
            place.artifacts,
            picture=picture,
            **options,  # type: ignore[arg-type]
        )
        targets = {"fake": target}
        return judge(request, targets, reference)

    return run


def picture(report: Report) -> Result:
    (result,) = (result for result in report.results if result.level == "picture")
    return result


def test_the_same_networks_draw_the_same_picture(go: Go, place: Place) -> None:
    report = go()
    assert report.verdict is Verdict.PASS
    assert report.sentence.startswith(
        "4 of 4 artifacts, 1 of 1 picture and 1 of 1 trajectory agree"
    )
    result = picture(report)
    assert result.label == "picture 128x64 f16 on fake"
    assert result.worst.about == '"a red circle", 2 steps of lcm, guidance 1, seed 0'
    data = json.loads((place.artifacts / "report.json").read_text())
    assert [result["level"] for result in data["results"][-2:]] == ["trajectory", "picture"]
    assert data["results"][-1]["psnr_db"] == 300 and data["results"][-1]["ssim"] == 1
    assert "--prompt 'a red circle' --scheduler lcm --steps 2 --guidance 1" in data["commands"][-2]


def test_the_report_begins_with_what_was_drawn(go: Go, place: Place) -> None:
    go()
    page = (place.artifacts / "report.html").read_text()
    gallery = page[page.index("What they draw") : page.index("Every artifact at its worst case")]
    assert gallery.count("<img") == 3
    assert "torch, fp32 (the reference)" in gallery and "fake: PSNR 300.0 dB" in gallery
    assert "SSIM 1.0000" in gallery and "fake: difference x" in gallery


@pytest.mark.parametrize(
    "corrupt",
    [
        np.zeros_like,
        lambda x: x[:, ::-1] if x.ndim == 4 else x,
        lambda x: np.where(x == x.max(), np.nan, x),
        lambda x: np.random.default_rng(0).standard_normal(x.shape).astype(np.float32),
    ],
    ids=["zeros", "channels", "nan", "noise"],
)
def test_another_picture_fails(
    corrupt: Callable[[Array], Array], go: Go, target: FakeTarget
) -> None:
    target.corrupt = corrupt
    assert picture(go()).verdict is Verdict.FAIL


def test_a_picture_is_drawn_once(go: Go, target: FakeTarget, reference: FakeReference) -> None:
    go()
    target.runs.clear()
    reference.runs.clear()
    go()
    assert (target.runs, reference.runs) == ([], [])
    go(picture=replace(QUICK, seed=1))
    drawn = ["text_encoder", "unet", "unet", "vae_decoder"]
    assert (target.runs, reference.runs) == (drawn, drawn)


def test_a_new_artifact_draws_again(go: Go, target: FakeTarget, place: Place) -> None:
    go()
    place.recompile("vae_decoder", "v2")
    assert picture(go(judge_only=True)).verdict is Verdict.INCOMPLETE
    target.runs.clear()
    assert picture(go()).verdict is Verdict.PASS
    # Its three cases, and the latent that the others came to before.
    assert target.runs == ["vae_decoder"] * 4


def test_what_the_emulator_has_no_time_for_is_no_pass(go: Go, target: FakeTarget) -> None:
    target.seconds = 60.0  # text encoder, two steps, decoder: four minutes
    result = picture(go(emulator_budget=200.0))
    assert result.verdict is Verdict.INCOMPLETE
    assert result.worst.ruling.sentence.startswith("not drawn on the emulator: about 4 min")
    assert picture(go(emulator_budget=240.0)).verdict is Verdict.PASS


def test_a_missing_emulator_is_incomplete_and_a_broken_file_fails(
    go: Go, target: FakeTarget
) -> None:
    target.cannot_run = "its emulator never ends"
    assert picture(go()).worst.ruling.sentence == "not drawn: its emulator never ends"
    target.cannot_run, target.installed = None, False
    assert picture(go()).verdict is Verdict.INCOMPLETE
    target.installed, target.breaks = True, True
    assert picture(go()).verdict is Verdict.FAIL


def test_a_folder_that_cannot_draw_says_what_it_lacks(go: Go, place: Place) -> None:
    manifest = Manifest.load(place.artifacts)
    kept = [a for a in manifest.artifacts if a.component != "vae_decoder"]
    replace(manifest, artifacts=kept).save()
    with pytest.raises(InputError, match="no vae_decoder for fake at 128x64"):
        go()
