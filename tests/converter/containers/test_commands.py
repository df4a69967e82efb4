"""Containers as a user meets them on the command line."""

import json
from pathlib import Path

import pytest

from sdconv.main import run


def test_inspect_says_what_a_folder_is_and_lacks(
    diffusers_folder: Path, pickled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(diffusers_folder), "--variant", "fp16"]) == 0
    out = capsys.readouterr().out
    assert "container: diffusers folder (unet: safetensors in" in out
    assert "variant fp16" in out
    assert run(["inspect", str(diffusers_folder / "vae"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["kind"], record["names"]) == ("vae", {"vae": "diffusers names"})
    assert run(["inspect", str(pickled)]) == 0
    assert "container: PyTorch pickle" in capsys.readouterr().out


def test_export_names_the_option_that_supplies_a_missing_part(
    diffusers_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    unet = ["export", "--unet", str(diffusers_folder / "unet"), "-o", str(out)]
    assert run(unet) == 2
    assert "--text-encoder FILE --vae FILE" in capsys.readouterr().err
    assert not out.exists()
    text = ["--text-encoder", str(diffusers_folder / "text_encoder")]
    assert run([*unet, *text, "--components", "text_encoder"]) == 0
    bundle = json.loads((out / "bundle.json").read_text())
    assert {source["role"] for source in bundle["sources"]} == {"text_encoder"}
    assert bundle["command"][2:6:2] == ["--unet", "--text-encoder"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-u", "http://host/model.safetensors"], "only https"),
        (["-u", "hf:model"], "not a hub address"),
        (["--vae", "https://user:pass@host/x"], "HF_TOKEN"),
        (["--ema"], "-u"),
    ],
)
def test_bad_addresses_are_one_line(
    arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "-o", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error
