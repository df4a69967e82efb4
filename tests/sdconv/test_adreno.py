"""The verb `adreno`: what it refuses, in one line."""

from pathlib import Path

import pytest

from sdconv.main import run
from targets.manifest import Manifest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runner", "--target", "tvm"], "'tvm' is for no phone: choose one of adreno-clml, "),
        (["memory", "--target", "tvm"], "'tvm' is for no phone: choose one of adreno-clml, "),
        (["memory", "--device", "8"], "a device of 8 GB: known are 12, 16"),
    ],
)
def test_refusals(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Manifest(tmp_path, tmp_path, {}, []).save()
    assert run(["adreno", *words, str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.count("\n") == 0
