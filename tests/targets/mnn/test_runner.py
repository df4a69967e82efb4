"""Models through MNN's Python API: sizes, what is missing, what goes wrong without a word."""

from pathlib import Path

import numpy as np
import pytest

from converter.bundle import Bundle
from converter.progress import silent
from converter.sizes import Size
from targets.adding import with_sizes
from targets.base import Artifact, ToolchainError
from targets.compile import CompileRequest, compile_bundle
from targets.mnn.model import WEIGHTS_SUFFIX
from targets.mnn.target import MnnTarget
from targets.mnn.toolchain import OTHER_PYTHON, Mnn
from targets.torch_reference import open_reference

SIZES = (Size(64, 64), Size(96, 64))


def compiled(bundle: Bundle, folder: Path, **options: object) -> list[Artifact]:
    request = CompileRequest(
        bundle.folder,
        "mnn",
        SIZES,
        folder,
        components=("vae_decoder",),
        **options,  # type: ignore[arg-type]
    )
    return list(compile_bundle(request, silent).artifacts)


@pytest.fixture(scope="module")
def decoder(
    mnn: Mnn, diffusers_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Artifact]]:
    del mnn
    folder = tmp_path_factory.mktemp("decoder")
    return folder, compiled(diffusers_bundle, folder, precision={"vae_decoder": "f32"})


def test_one_session_runs_every_size_and_goes_back(
    decoder: tuple[Path, list[Artifact]], diffusers_bundle: Bundle
) -> None:
    folder, (first, second) = decoder
    assert (first.path, first.files) == (second.path, second.files)
    target = MnnTarget()
    assert target.session(first) == target.session(second)
    rng = np.random.default_rng(0)
    with (
        target.open(first, folder) as runner,
        open_reference(diffusers_bundle, "vae_decoder") as reference,
    ):
        for rows, height, width in ((1, 8, 8), (2, 8, 12), (1, 5, 7), (1, 8, 8)):
            latent = rng.standard_normal((rows, 4, height, width), np.float32)
            given = {"latent_sample": latent}
            found, wanted = runner.infer(given)["sample"], reference.infer(given)["sample"]
            assert found.shape == wanted.shape == (rows, 3, 8 * height, 8 * width)
            assert np.abs(found - wanted).max() < 3e-4 * max(1, np.abs(wanted).max())


def test_a_size_added_later_leaves_the_weights_as_they_are(
    decoder: tuple[Path, list[Artifact]],
) -> None:
    folder, before = decoder
    files = [folder / name for name in (before[0].path, *before[0].files)]
    dates = [file.stat().st_mtime_ns for file in files]
    after = compile_bundle(with_sizes(folder, [Size(64, 128)]), silent).artifacts
    assert [(a.path, a.size) for a in after] == [
        (before[0].path, size) for size in (*SIZES, Size(64, 128))
    ]
    assert [file.stat().st_mtime_ns for file in files] == dates
    with MnnTarget().open(after[-1], folder) as runner:
        found = runner.infer({"latent_sample": np.zeros((1, 4, 16, 8), np.float32)})["sample"]
    assert found.shape == (1, 3, 128, 64)


def test_static_files_are_one_a_size_and_refuse_others(
    diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    first, second = compiled(diffusers_bundle, tmp_path, static=True)
    assert first.path == "mnn/vae_decoder_64x64.mnn"
    assert second.path == "mnn/vae_decoder_96x64.mnn"
    with MnnTarget().open(second, tmp_path) as runner:
        right = runner.infer({"latent_sample": np.zeros((1, 4, 8, 12), np.float32)})
        assert right["sample"].shape == (1, 3, 64, 96)
        with pytest.raises(ToolchainError, match="MNN"):
            runner.infer({"latent_sample": np.zeros((1, 4, 8, 8), np.float32)})


def test_a_model_without_its_weights_is_not_opened(
    decoder: tuple[Path, list[Artifact]], tmp_path: Path
) -> None:
    folder, (artifact, _) = decoder
    alone = tmp_path / artifact.path
    alone.parent.mkdir()
    alone.write_bytes((folder / artifact.path).read_bytes())
    with pytest.raises(ToolchainError, match=r"0 of [0-9]+ bytes of weights are there"):
        MnnTarget().open(artifact, tmp_path)
    weights = (folder / artifact.files[0]).read_bytes()
    alone.with_name(alone.name + WEIGHTS_SUFFIX).write_bytes(weights[:-1])
    with pytest.raises(ToolchainError, match="run the same compile again"):
        MnnTarget().open(artifact, tmp_path)


def test_inputs_have_to_be_those_of_the_model(decoder: tuple[Path, list[Artifact]]) -> None:
    folder, (artifact, _) = decoder
    with (
        MnnTarget().open(artifact, folder) as runner,
        pytest.raises(ValueError, match=r"\['latent'\] given"),
    ):
        runner.infer({"latent": np.zeros((1, 4, 8, 8), np.float32)})


def test_a_back_end_that_is_not_there_is_refused(
    mnn: Mnn, decoder: tuple[Path, list[Artifact]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNN itself says so in passing, and computes on the CPU."""
    folder, (artifact, _) = decoder
    with pytest.raises(ToolchainError, match="no back-end opencl: set SDCONV_MNN_PYTHON to"):
        MnnTarget("opencl").open(artifact, folder)
    monkeypatch.setenv(OTHER_PYTHON, str(mnn.python))
    with pytest.raises(ToolchainError, match="Can't Find type=3 backend"):
        MnnTarget("opencl").open(artifact, folder)


def test_another_python_has_to_exist(mnn: Mnn, monkeypatch: pytest.MonkeyPatch) -> None:
    del mnn
    monkeypatch.setenv(OTHER_PYTHON, "/nowhere/python")
    with pytest.raises(ToolchainError, match=r"SDCONV_MNN_PYTHON=/nowhere/python"):
        MnnTarget("opencl").check_ready()
