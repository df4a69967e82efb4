"""The original tool's commands, typed as its users have them, on the small model."""

from pathlib import Path

import pytest

from converter.bundle import Bundle
from converter.downloads.addresses import looks_like_repository
from converter.progress import silent
from converter.sizes import Size
from examples.random_checkpoint import write_controlnet
from examples.small_models import SMALL
from sdconv.main import run
from sdconv.model_options import LocalFiles
from sdconv.original_flags import translate
from targets.compile import CompileRequest, jobs_of
from targets.manifest import Manifest
from targets.registry import get_target
from tests.conftest import SmallModel


@pytest.fixture(scope="module")
def exported(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the original's export command makes; -o was ``<folder>/name``."""
    folder = tmp_path_factory.mktemp("original")
    controlnet = folder / "controlnet.safetensors"
    assert SMALL.unet is not None
    write_controlnet(controlnet, SMALL.unet)
    command = ["export", "-u", str(small_model.checkpoint), "-l", str(small_model.lora)]
    command += ["-c", str(controlnet), "-b", "1", "-v", "sd15", "-o", str(folder / "name")]
    assert run(command) == 0
    return folder / "name"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[CompileRequest]:
    """The requests that `sdconv compile` made, of which none is carried out."""
    requests: list[CompileRequest] = []

    def remember(request: CompileRequest, progress: object) -> Manifest:
        requests.append(request)
        return Manifest(request.output, request.bundle, {}, [])

    monkeypatch.setattr("targets.compile.compile_bundle", remember)
    monkeypatch.setattr(Manifest, "of_target", lambda self, _: self)
    monkeypatch.setattr("sdconv.validate.validate", lambda *_, **__: None)
    return requests


def test_compiled_for_the_originals_chip_under_its_names_in_its_folder(
    exported: Path, asked: list[CompileRequest], tmp_path: Path
) -> None:
    command = ["compile", "-n", str(exported), "-o", str(tmp_path), "-s", "512", "512"]
    command += ["768", "768", "768", "512", "512", "768", "-b", "1", "-v", "sd15"]
    assert run(command) == 0
    (request,) = asked
    assert (request.target, request.output, request.batch) == ("bm1684x", tmp_path, 1)
    assert [str(s) for s in request.sizes] == ["512x512", "768x768", "768x512", "512x768"]
    jobs = jobs_of(request, Bundle.load(exported), get_target("bm1684x"))
    made = {name: (mine[0].file, mine[0].precision) for name, mine in jobs.items()}
    assert made == {
        "text_encoder": ("sdv15_text", "f32"),
        "controlnet": ("sdv15_cn_multisize", "f16"),
        "unet": ("sdv15_unet_multisize", "f16"),
        "vae_encoder": ("sdv15_ve_multisize", "f16"),
        "vae_decoder": ("sdv15_vd_multisize", "bf16"),
    }
    assert [job.batch for job in jobs["unet"]] == [1] * 4


def test_another_chip_has_a_folder_of_its_own(exported: Path) -> None:
    request = CompileRequest(exported, "bm1688", (Size(64, 64),))
    jobs = jobs_of(request, Bundle.load(exported), get_target("bm1688"))
    assert jobs["unet"][0].file == "bm1688/sdv15_unet_multisize"


def test_what_is_left_out_is_what_the_original_takes(
    exported: Path, asked: list[CompileRequest]
) -> None:
    assert run(["compile", "-n", str(exported)]) == 0
    assert (asked[0].target, asked[0].sizes, asked[0].batch) == (
        "bm1684x",
        (Size(512, 512),),
        None,
    )


def test_the_folder_with_the_version_behind_its_name(
    exported: Path, asked: list[CompileRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    # The original's export wrote to "<what -o names>_sd15", so that is what its users then compile.
    assert run(["compile", "-n", f"{exported}_sd15", "-s", "512", "512"]) == 0
    assert asked[0].bundle == exported
    assert "taken from" in capsys.readouterr().err
    assert run(["compile", "-n", f"{exported}_sd16", "-s", "512", "512"]) == 2


def test_a_tree_that_the_original_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/unet_fuse_1.pt").write_bytes(b"")
    assert run(["compile", "-n", str(tmp_path), "-s", "512", "512"]) == 2
    assert "run 'sdconv export -u CHECKPOINT -o FOLDER'" in capsys.readouterr().err


def test_long_options_of_the_original() -> None:
    words = ["export", "--unet_safetensors_path", "m", "--lora_path=l", "--controlnet_path", "c"]
    assert translate([*words, "--batch", "2", "--version", "sd15", "--output_name", "o"]) == [
        "export", "-u", "m", "-l", "l", "-c", "c", "--batch", "2", "-v", "sd15", "-o", "o",
    ]  # fmt: skip
    words = ["compile", "--path", "n", "--output_bmodel", "o", "--sdversion", "sd15"]
    assert translate([*words, "--shape_lists", "512", "512", "--batch", "1"]) == [
        "compile", "-n", "n", "-o", "o", "-v", "sd15", "--sizes", "512x512", "--batch", "1",
    ]  # fmt: skip
    assert translate(["validate", "--path", "n"]) == ["validate", "--path", "n"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-cm", "True"], "--controlnet-merge BASE"),
        (["--controlnet_merge=True"], "--controlnet-merge BASE"),
        (["-debug", "True"], "leave it out"),
        (["-v", "sd21"], "choose one of sd15, sd2, sdxl"),
        (["-v", "sdxl"], "this is sd15: write -v sd15"),
    ],
)
def test_what_the_original_took_without_a_use_is_refused(
    words: list[str],
    said: str,
    small_model: SmallModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["export", "-u", str(small_model.checkpoint), "-o", str(tmp_path / "out"), *words]
    assert run(command) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_compile_refuses_another_family(
    exported: Path, asked: list[CompileRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compile", "-n", str(exported), "-s", "512", "512", "-v", "sdxl"]) == 2
    assert "this is sd15: write -v sd15, or leave it out" in capsys.readouterr().err
    assert asked == []


def test_the_order_of_two_sides_is_said_where_it_matters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    translate(["compile", "-s", "512", "512", "768", "512", "512", "768"])
    assert capsys.readouterr().err == ""
    translate(["compile", "-s", "512", "512", "768", "512"])
    assert "-s is WIDTH HEIGHT" in capsys.readouterr().err


def test_a_lora_of_the_hub_is_named_as_the_original_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetched: list[str] = []

    def fetch(text: str, *_: object) -> Path:
        fetched.append(text)
        return tmp_path / "lora.safetensors"

    monkeypatch.setattr("converter.downloads.fetch.local_path", fetch)
    local = LocalFiles(None, silent)
    (choice,) = local.adapters(["latent-consistency/lcm-lora-sdv1-5:0.8"])
    assert (fetched, choice.scale) == (["hf:latent-consistency/lcm-lora-sdv1-5"], 0.8)
    assert list(local.addresses.values()) == ["hf:latent-consistency/lcm-lora-sdv1-5"]
    (tmp_path / "loras").mkdir()
    for path in ("loras/style", "lora.safetensors", "new/lora.safetensors", "a/b/c", "/a/b"):
        assert not looks_like_repository(path), path
