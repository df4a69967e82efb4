"""Cut and flipped files of every container: one line, quickly, in little memory."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from converter.errors import InputError
from converter.inspection import inspect

SECONDS = 2.0
KILOBYTES = 200_000


def tensors() -> dict[str, torch.Tensor]:
    made = {f"layer.{n}.weight": torch.arange(12.0).reshape(3, 4) for n in range(3)}
    return {**made, "layer.0.scale_weight": torch.ones(1), "turned": torch.arange(6.0)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    save_file(tensors(), folder / "x.safetensors")
    views = {**tensors(), "turned": torch.arange(6.0).reshape(2, 3).T}
    torch.save({"state_dict": views}, folder / "x.ckpt")
    torch.save(views, folder / "x.pt", _use_new_zipfile_serialization=False)
    writer = gguf.GGUFWriter(folder / "x.gguf", "sd1")
    writer.add_array("comfy.gguf.orig_shape.a", [8, 4])
    writer.add_array("texts", ["one", "two"])
    writer.add_tensor("a", np.ones((2, 16), np.float32))
    writer.add_tensor("b", np.ones((2, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "x.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    return {path.name: path.read_bytes() for path in folder.iterdir()}


NAMES = ["x.safetensors", "x.ckpt", "x.pt", "x.gguf", "x.safetensors.index.json"]


@pytest.mark.parametrize("name", NAMES)
@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_any_damage_is_an_input_error_or_none(
    name: str,
    cut: float,
    flips: list[tuple[float, int]],
    files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = bytearray(files[name])
    for where, value in flips:
        content[int(where * (len(content) - 1))] = value
    if not flips:
        content = content[: int(cut * len(content))]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    start = time.process_time()
    with contextlib.suppress(InputError):
        inspect(path)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_cut_file_is_never_taken_for_a_whole_one(
    name: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / name
    for size in range(0, len(files[name]), max(1, len(files[name]) // 50)):
        path.write_bytes(files[name][:size])
        with pytest.raises(InputError) as caught:
            inspect(path)
        assert "\n" not in str(caught.value)


HEAVY = {
    "nested header": (b"\x40\x0d\x03\0\0\0\0\0" + b"[" * 200_000, "not JSON"),
    "huge shape": (
        b"\x50\0\0\0\0\0\0\0"
        + b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'.ljust(80),
        "damaged header",
    ),
    "infinite extent": (
        b"\x50\0\0\0\0\0\0\0"
        + b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,0]}}'.ljust(80),
        "damaged header",
    ),
    "endless pickle": (b"\x80\x02" + b"N0" * 5_000_000 + b".", "instructions"),
    "wide memo": (b"\x80\x02]r\xff\xff\xff\x7f.", "pickle"),
    "long text": (b"\x80\x02X\xff\xff\xff\x7f", "pickle"),
    "many entries": (b"GGUF\3\0\0\0" + b"\xff" * 16, "claims"),
    "many texts": (
        b"GGUF\3\0\0\0"
        + bytes(8)
        + b"\1"
        + bytes(7)  # one entry, no tensor
        + bytes(8)
        + b"\x09\0\0\0\x08\0\0\0"
        + b"\xff" * 4
        + bytes(30_000_000),
        "texts",
    ),
    "long list": (
        b"GGUF\3\0\0\0"
        + bytes(8)
        + b"\1"
        + bytes(7)
        + bytes(8)
        + b"\x09\0\0\0\0\0\0\0"
        + b"\xff" * 8
        + bytes(30_000_000),
        "cut short",
    ),
}


@pytest.mark.parametrize("case", HEAVY)
def test_what_would_take_memory_or_time_does_not(case: str, tmp_path: Path) -> None:
    content, reason = HEAVY[case]
    path = tmp_path / "model"
    path.write_bytes(content)
    code = (
        "import re, sys, time\nfrom converter.errors import InputError\n"
        "from converter.inspection import inspect\nfrom pathlib import Path\n"
        "start = time.process_time()\n"
        "try:\n    inspect(Path(sys.argv[1]))\nexcept InputError as e:\n    print(e)\n"
        "print(time.process_time() - start)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    message, seconds, kilobytes = done.stdout.splitlines()
    assert reason in message
    assert float(seconds) < SECONDS
    assert int(kilobytes) < KILOBYTES
