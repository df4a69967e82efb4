"""Drawing in stages: what lies between them, and that it is the same picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from PIL import Image

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.raw_tensors import read_raw
from converter.sizes import Size
from runtime.conditioning import added_embedding, sinusoids
from runtime.generate import GenerateRequest, generate
from runtime.sampling import PictureRequest
from runtime.staged import StagedRequest, draw_staged
from targets.compile import CompileRequest, compile_bundle
from tests.conftest import SmallModel

SIZE = Size(64, 64)
PICTURE = PictureRequest("a red circle", "a blue one", steps=3)


@pytest.fixture(scope="module")
def artifacts(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model behind a phone's ports, for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("adreno")
    bundle: Bundle = export(
        ExportRequest(small_model.checkpoint, folder / "bundle", profile="adreno")
    )
    compile_bundle(CompileRequest(bundle.folder, "onnxruntime", (SIZE,), folder / "artifacts"))
    return folder / "artifacts"


def staged(artifacts: Path, folder: Path, picture: PictureRequest = PICTURE) -> StagedRequest:
    return StagedRequest(
        artifacts, folder / "stages", folder / "staged.png", picture, "onnxruntime", SIZE
    )


@pytest.mark.slow
def test_stages_draw_the_picture_that_one_process_draws(artifacts: Path, tmp_path: Path) -> None:
    request = staged(artifacts, tmp_path)
    reports = draw_staged(request)
    assert [report.stage for report in reports] == ["text", "denoise", "decode"]
    assert all(report.seconds > 0 and report.peak > 20e6 for report in reports)
    tokens = read_raw(request.folder / "text_encoder.i32", (2, 77))
    assert tokens[:, 0].tolist() == [49406, 49406]
    assert (tokens[0] != tokens[1]).any()
    assert read_raw(request.folder / "latent.qfp32", (1, 4, 8, 8)).dtype == np.float32
    whole = GenerateRequest(artifacts, tmp_path / "whole.png", PICTURE)
    assert generate(whole).read_bytes() == request.output.read_bytes()


def test_what_is_missing_is_said_before_anything_runs(artifacts: Path, tmp_path: Path) -> None:
    request = replace(staged(artifacts, tmp_path), size=Size(128, 128))
    with pytest.raises(InputError, match="no unet and no vae_decoder for onnxruntime at 128x128"):
        draw_staged(request)
    assert not request.folder.exists()


def test_a_step_less_needs_a_step(artifacts: Path, tmp_path: Path) -> None:
    request = GenerateRequest(artifacts, tmp_path / "none.png", replace(PICTURE, early=3))
    with pytest.raises(InputError, match="3 steps left out of 3"):
        generate(request)


def test_early_decoding_is_near_the_picture(artifacts: Path, tmp_path: Path) -> None:
    """The nearer, the fewer steps are left out."""
    drawn = {}
    for early in (0, 1, 4):
        path = tmp_path / f"{early}.png"
        generate(GenerateRequest(artifacts, path, replace(PICTURE, steps=5, early=early)))
        drawn[early] = np.asarray(Image.open(path), np.float32)
    away = [float(np.sqrt(np.mean((drawn[early] - drawn[0]) ** 2))) for early in (1, 4)]
    assert 0 < away[0] < away[1]


def test_sinusoids_are_those_of_diffusers() -> None:
    values = np.array([0.0, 1.0, 17.5, 999.0], np.float32)
    wanted = get_timestep_embedding(torch.from_numpy(values), 320, True, 0)
    np.testing.assert_allclose(sinusoids(values, 320), wanted.numpy(), atol=1e-4)


def test_sizes_are_embedded_one_by_one_behind_the_pooled_text() -> None:
    pooled = np.ones((2, 5), np.float32)
    sizes = np.tile(np.array([[1024, 768, 0, 0, 1024, 768]], np.float32), (2, 1))
    joined = added_embedding(pooled, sizes)
    assert joined.shape == (2, 5 + 6 * 256)
    np.testing.assert_array_equal(joined[:, :5], pooled)
    np.testing.assert_array_equal(joined[0, 5 + 256 : 5 + 512], sinusoids(sizes[0, 1:2], 256)[0])
