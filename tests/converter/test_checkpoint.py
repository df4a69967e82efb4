"""Reading headers: whole files, and every way in which one can be broken."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from converter.containers.opening import open_checkpoint
from converter.errors import InputError


def write(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(encoded) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + encoded + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_safetensors_package_wrote(tmp_path: Path) -> None:
    tensors = {
        "a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.array([1.5], ml_dtypes.bfloat16),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"who": "me"})
    file = open_checkpoint(path)
    assert file.metadata == {"who": "me"}
    assert file.tensors["a"].shape == (2, 3)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.read(name), tensor)
        file.release(name)
        np.testing.assert_array_equal(file.read(name), tensor)


def test_views_cannot_be_written(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": entry("F32", [1], 0, 4)}, b"\0" * 4)
    with pytest.raises(ValueError, match="read-only"):
        open_checkpoint(path).read("a")[0] = 1


BROKEN: dict[str, tuple[bytes, str]] = {
    "text": (b"this is no checkpoint at all", "header claims"),
    "tiny": (b"abc", "only 3 bytes"),
    "empty": (b"", "only 0 bytes"),
    "pickle": (b"\x80\x02}q\x00.......", "pickle"),
    "zip": (b"PK\x03\x04aaaaaaaaaaaaa", "pickle"),
    "gguf": (b"GGUF\x03\0\0\0aaaa", "not a whole GGUF file: it is cut short"),
    "long header": (struct.pack("<Q", 1 << 60) + b"{}", "header claims"),
    "no json": (struct.pack("<Q", 4) + b"abcd", "not JSON"),
    "no object": (struct.pack("<Q", 2) + b"[]", "no JSON object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, reason = BROKEN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


HEADERS: dict[str, tuple[dict[str, Any], int, str]] = {
    "cut short": ({"a": entry("F32", [4], 0, 16)}, 12, "cut short"),
    "trailing bytes": ({"a": entry("F32", [4], 0, 16)}, 20, "damaged"),
    "wrong length": ({"a": entry("F32", [4], 0, 12)}, 12, "takes 16 bytes"),
    "gap": ({"a": entry("F32", [1], 4, 8)}, 8, "starts at byte"),
    "overlap": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, 12, "starts at"),
    "unknown dtype": ({"a": entry("F4", [2], 0, 1)}, 1, "dtype F4"),
    "negative extent": ({"a": entry("F32", [-2, -2], 0, 16)}, 16, "damaged header"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, 4, "damaged header"),
    "not a mapping": ({"a": 3}, 4, "damaged header"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_lying_header_is_refused(tmp_path: Path, case: str) -> None:
    header, size, reason = HEADERS[case]
    path = write(tmp_path / "x", header, b"\0" * size)
    with pytest.raises(InputError, match=reason):
        open_checkpoint(path)


@pytest.mark.parametrize("length", [128, 640, 0x0380])
def test_a_header_length_that_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    header = json.dumps({"a": entry("U8", [1], 0, 1)}).encode().ljust(length)
    assert list(open_checkpoint(write(tmp_path / "x", header, b"\0")).tensors) == ["a"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_checkpoint(tmp_path / "missing")
    with pytest.raises(InputError, match="a folder"):
        open_checkpoint(tmp_path)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_cause_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        open_checkpoint(path)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("ab", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ENTRIES = st.dictionaries(
    st.sampled_from(["dtype", "shape", "data_offsets", "x"]),
    st.sampled_from(["F32", "F16", [1], [2, 2], [0, 4], [0, 16]]) | JSON_VALUES,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | JSON_VALUES))
def test_no_header_at_all_causes_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "fuzz-header", header, b"\0" * 16)
    with contextlib.suppress(InputError):
        open_checkpoint(path)
