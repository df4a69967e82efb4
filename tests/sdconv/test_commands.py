"""The commands as a user types them: output, exit codes, and one-line errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from converter.bundle import Bundle
from sdconv.main import run
from sdconv.original_flags import translate
from tests.conftest import SmallModel


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    return error


def test_inspect_prints_a_summary_or_json(
    small_model: SmallModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(small_model.checkpoint)]) == 0
    assert "family sd15" in capsys.readouterr().out
    assert run(["inspect", str(small_model.checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "checkpoint"


def test_inspect_takes_little_memory_and_time(small_model: SmallModel) -> None:
    code = (
        "import re, sys\nfrom sdconv.main import run\n"
        "run(['inspect', sys.argv[1], '--json'])\n"
        # Not getrusage: its peak includes the process that this one was forked from.
        "status = open('/proc/self/status').read()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
        "print(*(set(sys.modules) & {'torch', 'onnx', 'onnxruntime'}), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, str(small_model.checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, *modules = done.stderr.split()
    assert int(kilobytes) < 200_000
    assert modules == []


def test_export_and_compile_from_the_command_line(
    small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, artifacts = str(tmp_path / "out"), str(tmp_path / "artifacts")
    lora = f"{small_model.lora}:0.8"
    assert run(["export", "-u", str(small_model.checkpoint), "-l", lora, "-o", bundle]) == 0
    compile_ = ["compile", "-n", bundle, "--target", "onnxruntime", "-o", artifacts]
    compile_ += ["-s", "64", "64", "128", "64", "--no-validate"]
    assert run(compile_) == 0
    manifest = json.loads((tmp_path / "artifacts/manifest.json").read_text())
    assert manifest["schema"] == 1
    assert len(manifest["artifacts"]) == 7
    keys = {"component", "target", "chip", "size", "batch", "precision", "path", "blake3"}
    keys |= {"reused", "how", "predicted_ms"}
    assert all(keys <= artifact.keys() for artifact in manifest["artifacts"])
    capsys.readouterr()
    assert run(compile_) == 0
    assert capsys.readouterr().out.count("reused (same graph") == 7


def test_exporting_a_known_architecture_imports_no_torch(
    small_model: SmallModel, small_bundle: Bundle, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom sdconv.main import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "print(*(set(sys.modules) & {'torch', 'diffusers', 'transformers'}), file=sys.stderr)\n"
    )
    command = ["export", "-u", str(small_model.checkpoint), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip().splitlines()[-1].strip() not in ("torch", "diffusers")
    assert "torch" not in done.stderr.split()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["inspect", "missing.safetensors"], "cannot be read"),
        (["export", "-u", "missing.safetensors", "-o", "out"], "cannot be read"),
        (["compile", "-n", "missing", "--target", "onnxruntime", "--sizes", "64x64"], "not found"),
        (["compile", "-n", "x", "--target", "onnxruntime", "-s", "512"], "pairs WIDTH HEIGHT"),
        (["validate", "missing"], "manifest"),
        (["toolchain", "install", "nope"], "tpu-mlir"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert reason in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sizes", "100x64"], "nearest that works is 128x64"),
        (["--sizes", "64by64"], "WIDTHxHEIGHT"),
        (["--target", "nope"], "choose one of onnxruntime, "),
        (["--precision", "unet=f8"], "f32"),
        (["--precision", "unet"], "COMPONENT=PRECISION"),
        (["--precision", "controlnet=f16"], "no component 'controlnet'"),
        (["--components", "unet,nope"], "no component 'nope'"),
        (["-b", "0"], "at least 1"),
        (["--effort", "most"], "normal, high"),
    ],
)
def test_compile_refuses_what_cannot_work(
    options: list[str],
    reason: str,
    small_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = ["compile", "-n", str(small_bundle.folder), "-o", str(tmp_path / "a")]
    defaults = {"--target": "onnxruntime", "--sizes": "64x64"}
    given = dict(zip(options[::2], options[1::2], strict=True))
    words = [word for pair in {**defaults, **given}.items() for word in pair]
    assert run([*base, *words]) == 2
    assert reason in one_line_error(capsys)
    assert not (tmp_path / "a").exists()


def test_sizes_are_added_to_what_a_folder_holds(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["-o", str(tmp_path), "--no-validate"]
    first = ["compile", "-n", str(small_bundle.folder), "--target", "onnxruntime", *folder]
    first += ["--sizes", "64x64", "--components", "text_encoder,vae_decoder"]
    assert run(first) == 0
    assert run(["compile", "--add-sizes", "128x64", *folder]) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    made = [(a["component"], a["size"]) for a in manifest["artifacts"]]
    assert made == [("text_encoder", None), ("vae_decoder", "64x64"), ("vae_decoder", "128x64")]
    command = manifest["commands"]["onnxruntime"]
    assert command[command.index("--sizes") + 1] == "64x64,128x64"
    capsys.readouterr()
    for words, expected in (
        (["--effort", "high"], "leave out what is chosen besides"),
        (["--target", "bm1684x"], "nothing for target 'bm1684x' to add a size to"),
    ):
        assert run(["compile", "--add-sizes", "64x128", *words, *folder]) == 2
        assert expected in one_line_error(capsys)
    assert run([*first[:-1], "vae_decoder"]) == 0
    said = capsys.readouterr().err
    assert "no longer listed, because this run did not name it: text_encoder f32, " in said
    assert "vae_decoder 128x64 f32 (--add-sizes keeps what is there)" in said


def test_usage_errors_are_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nope"]) == 2
    assert run(["export", "-o", "out"]) == 2
    assert "-u" in capsys.readouterr().err


def test_targets_lists_every_target_and_what_it_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["targets"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime" in out
    assert "bm1684x" in out


def test_the_original_size_flag_is_translated() -> None:
    words = ["compile", "-n", "x", "-s", "512", "512", "768", "512", "-b", "1"]
    expected = ["compile", "-n", "x", "--sizes", "512x512,768x512", "-b", "1"]
    assert translate(words) == expected
    assert translate(["inspect", "x"]) == ["inspect", "x"]


def test_an_interrupt_exits_with_130(
    small_model: SmallModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("converter.export.export", interrupt)
    command = ["export", "-u", str(small_model.checkpoint), "-o", str(tmp_path / "out")]
    assert run(command) == 130
    assert "interrupted" in capsys.readouterr().err
