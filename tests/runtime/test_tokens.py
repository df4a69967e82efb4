"""Raw files that phones exchange: token ids in, pictures out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.bundle import Bundle
from converter.errors import InputError
from converter.raw_tensors import read_raw, write_raw
from runtime.tokenizer import tokenize
from sdconv.main import run

SHAPE = (2, 77)


def test_tokens_of_both_text_encoders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokens", "a red circle", "-o", str(tmp_path), "--negative", "blue"]
    assert run(words) == 0
    assert "text_encoder_2.i32" in capsys.readouterr().out
    prompts = ["blue", "a red circle"]
    for name, padding in (("text_encoder", 49407), ("text_encoder_2", 0)):
        path = tmp_path / f"{name}.i32"
        assert path.stat().st_size == 2 * 77 * 4
        found = read_raw(path, SHAPE)
        assert np.array_equal(found, tokenize(prompts, padding))
        assert found[0, -1] == found[1, -1] == padding


def test_a_bundle_says_which_text_encoders_there_are(
    diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    assert run(["tokens", "red", "-o", str(tmp_path), "-n", str(diffusers_bundle.folder)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["text_encoder.i32"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.qfp32", "<f4"), ("a.qfp16", "<f2"), ("a.qint32", "<i4"), ("a.i32", "<i4")],
)
def test_raw_tensors_are_their_bytes(name: str, dtype: str, tmp_path: Path) -> None:
    values = np.arange(-6, 6).reshape(3, 4)
    write_raw(tmp_path / name, values)
    assert (tmp_path / name).read_bytes() == values.astype(dtype).tobytes()
    assert np.array_equal(read_raw(tmp_path / name, (3, 4)), values)
    assert read_raw(tmp_path / name).shape == (12,)


def test_what_is_no_such_tensor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.i32").write_bytes(bytes(10))
    with pytest.raises(InputError, match="10 bytes are not numbers of 4 bytes each"):
        read_raw(tmp_path / "a.i32")
    with pytest.raises(InputError, match="10 bytes are not 6 numbers"):
        read_raw(tmp_path / "a.i32", (2, 3))
    with pytest.raises(InputError, match="there is no such file"):
        read_raw(tmp_path / "b.i32")
    with pytest.raises(InputError, match=r"one of \.qfp32, \.qfp16, \.qint32, \.i32"):
        read_raw(tmp_path / "a.bin")


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_picture_of_a_raw_tensor(channels_last: bool, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    tensor = (colours / 127.5 - 1).astype(np.float32)
    if not channels_last:
        tensor = tensor.transpose(2, 0, 1)
    write_raw(tmp_path / "x.qfp32", tensor)
    words = ["picture", str(tmp_path / "x.qfp32"), "-o", str(tmp_path / "x.png"), "--size", "6x4"]
    assert run([*words, *(["--channels-last"] if channels_last else [])]) == 0
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), colours)


def test_a_square_needs_no_size_and_others_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path / "square.qfp16", np.zeros((3, 5, 5)))
    write_raw(tmp_path / "wide.qfp32", np.zeros((3, 4, 6)))
    png = str(tmp_path / "x.png")
    assert run(["picture", str(tmp_path / "square.qfp16"), "-o", png]) == 0
    assert run(["picture", str(tmp_path / "wide.qfp32"), "-o", png]) == 2
    assert "no square picture: add --size WIDTHxHEIGHT" in capsys.readouterr().err
