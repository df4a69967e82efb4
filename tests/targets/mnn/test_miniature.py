"""The miniature, which draws: its picture by MNN at two sizes, from one file, judged."""

import json
from pathlib import Path

import pytest

from converter.bundle import Bundle
from converter.progress import silent
from converter.sizes import Size
from examples.mini.score import CONTROLLED, FILES, QUICK
from runtime.hints import HintFile
from runtime.png import png
from runtime.sampling import PictureRequest, to_pixels
from targets.compile import CompileRequest, compile_bundle
from targets.mnn.toolchain import Mnn
from validate.base import Level, Verdict
from validate.drawing import draw
from validate.validate import ValidateRequest, validate

pytestmark = pytest.mark.slow

PROMPT = "a red circle on a blue background"
SIZES = (Size(64, 64), Size(128, 64))
PRECISIONS = {"unet": "w8", "vae_encoder": "w8a8"}
"""The others in f16."""


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return CONTROLLED.export(FILES, tmp_path_factory.mktemp("miniature"))


def test_its_picture_is_the_reference_s(mnn: Mnn, miniature: Bundle, tmp_path: Path) -> None:
    del mnn
    request = CompileRequest(miniature.folder, "mnn", SIZES, tmp_path, PRECISIONS)
    artifacts = compile_bundle(request, silent).artifacts
    files = {artifact.path for artifact in artifacts}
    assert len(files) == len(miniature.components)
    assert len(artifacts) == 2 * len(files) - 1  # a text encoder has no size
    edges = tmp_path / "edges.png"
    edges.write_bytes(png(to_pixels(draw(0, 64, 64))))
    picture = PictureRequest(PROMPT, **QUICK.sampling, hints=(HintFile(edges),))
    report = validate(ValidateRequest(tmp_path, picture=picture))
    assert report.verdict is Verdict.PASS, report.sentence
    drawn = [result for result in report.results if result.level == Level.PICTURE]
    assert [result.size for result in drawn] == list(SIZES)
    judged = {(r.component, r.size): r for r in report.results}
    for size in SIZES:  # one session, resized
        unet = judged["unet", size]
        assert unet.precision == "w8"
        assert all(check.measurement is not None for check in unet.checks)
    saved = json.loads((tmp_path / "manifest.json").read_text())
    assert {artifact["how"] for artifact in saved["artifacts"]} == {"bound"}
