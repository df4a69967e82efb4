"""The verb on a small random model: noise, but of the right size, from the right artifacts."""

import shutil
import struct
from pathlib import Path

import pytest

from converter.bundle import Bundle
from converter.sizes import parse_sizes
from runtime.generate import usual_target
from runtime.sampling import PictureRequest
from sdconv import picture_options
from sdconv.main import run
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import MANIFEST_FILE


@pytest.fixture(scope="module")
def artifacts(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("artifacts")
    sizes = parse_sizes("64x64,128x64")
    compile_bundle(CompileRequest(small_bundle.folder, "onnxruntime", sizes, output))
    return output


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_a_picture_of_the_size_asked_for(artifacts: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "picture.png"
    words = ["generate", str(artifacts), "--prompt", "a cat", "--steps", "2", "-o", str(output)]
    assert run(words) == 0
    assert png_size(output) == (64, 64)  # the first that was compiled
    first = output.read_bytes()
    assert run(words) == 0
    assert output.read_bytes() == first
    assert run([*words, "--size", "128x64", "--scheduler", "lcm", "--guidance", "1"]) == 0
    assert png_size(output) == (128, 64)


def test_the_only_target_of_a_folder_is_the_usual_one(artifacts: Path, tmp_path: Path) -> None:
    assert usual_target(artifacts) == "onnxruntime"
    other = shutil.copytree(artifacts, tmp_path / "other")
    manifest = (other / MANIFEST_FILE).read_text()
    (other / MANIFEST_FILE).write_text(manifest.replace('"onnxruntime"', '"mnn"'))
    assert usual_target(other) == "mnn"
    (other / MANIFEST_FILE).write_text(
        manifest.replace('"target": "onnxruntime"', '"target": "mnn"', 1)
    )
    assert usual_target(other) == "onnxruntime"  # there are two


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "256x256"], "for onnxruntime at 256x256 (onnxruntime has 64x64, 128x64 here)"),
        (["--target", "bm1684x"], "nothing for target 'bm1684x' that draws"),
        (["--scheduler", "magic"], "unknown scheduler 'magic'"),
        (["--bundle", "elsewhere"], "say where it is now with --bundle"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    words: list[str],
    message: str,
    artifacts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "picture.png"
    assert run(["generate", str(artifacts), "-p", "a cat", "-o", str(output), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert [*tmp_path.iterdir()] == []


def test_a_prompt_that_is_too_long_is_cut_aloud(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "picture.png"
    prompt = "red " * 75 + "green"
    assert run(["generate", str(artifacts), "-p", prompt, "--steps", "1", "-o", str(output)]) == 0
    assert 'not used: "green"' in capsys.readouterr().err


def test_the_options_begin_as_a_request_does() -> None:
    request = PictureRequest("")
    options = (picture_options.SCHEDULER, picture_options.STEPS, picture_options.GUIDANCE)
    assert options == (request.scheduler, request.steps, request.guidance)
