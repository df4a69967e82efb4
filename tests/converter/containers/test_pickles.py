"""Pickles: the tensors come out, and nothing in them ever runs."""

import contextlib
import os
import pickle
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converter.containers.opening import open_checkpoint
from converter.containers.pickle_program import (
    MOST_INSTRUCTIONS,
    Global,
    Placeholder,
    ProgramError,
    run,
)
from converter.errors import InputError


class Payload:
    """Runs a shell command when Python's own reader meets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_the_payload_is_a_real_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_malicious_checkpoint_runs_nothing_and_gives_its_tensors(
    tmp_path: Path, zipped: bool, protocol: int
) -> None:
    marker = tmp_path / "ran"
    contents = {"callbacks": {Payload: Payload(marker)}, "x": Payload(marker)}
    contents["state_dict"] = OrderedDict(a=torch.arange(3.0), evil=Payload(marker))
    path = tmp_path / "model.ckpt"
    torch.save(contents, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    file = open_checkpoint(path)
    assert list(file.tensors) == ["a"]
    np.testing.assert_array_equal(file.read("a"), [0, 1, 2])
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # of the payload
def test_a_dict_of_parameters_and_the_texts_beside_it_are_read(
    tmp_path: Path, zipped: bool
) -> None:
    named = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))})
    marker = tmp_path / "ran"
    contents = {"string_to_param": named, "name": "toy", "step": 3, "evil": Payload(marker)}
    path = tmp_path / "toy.pt"
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    file = open_checkpoint(path)
    assert list(file.tensors) == ["string_to_param.*"]
    np.testing.assert_array_equal(file.read("string_to_param.*"), [[0, 1, 2], [3, 4, 5]])
    assert file.metadata == {"name": "toy"}
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_of_every_protocol_become_placeholders(tmp_path: Path, protocol: int) -> None:
    made = run(
        BytesIO(pickle.dumps([Payload(tmp_path / "ran"), 1.5], protocol)),
        lambda function, _: Placeholder(function),
    )
    assert made == [Placeholder(Global(os.system.__module__, "system")), 1.5]
    assert not (tmp_path / "ran").exists()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=12,
)  # fmt: skip


@given(PLAIN, st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_read_as_python_reads_them(value: object, protocol: int) -> None:
    assert run(BytesIO(pickle.dumps(value, protocol)), lambda *_: None) == value


def save(path: Path, tensors: object) -> Path:
    torch.save(tensors, path)
    return path


def test_views_are_read_with_their_strides(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "whole": base,
        "transposed": base.T,
        "slice": base[1:3, 2:5],
        "column": base[:, 3],
        "parameter": torch.nn.Parameter(base[2]),
        "scalar": base[3, 5],
        "empty": base[:0],
        "float8": base.to(torch.float8_e4m3fn),
        "bfloat16": base.bfloat16(),
        "integers": torch.arange(4),
    }
    file = open_checkpoint(save(tmp_path / "views.pt", tensors))
    assert list(file.tensors) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.detach().double().numpy()
        np.testing.assert_array_equal(file.read(name).astype(np.float64), expected, err_msg=name)
        file.release(name)
        np.testing.assert_array_equal(file.read(name).astype(np.float64), expected, err_msg=name)


def test_a_dict_inside_a_dict_is_named_with_a_dot(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", {"string_to_param": {"*": torch.zeros(2, 3)}, "step": 5})
    assert open_checkpoint(path).tensors["string_to_param.*"].shape == (2, 3)


@pytest.mark.parametrize("zipped", [True, False])
def test_dicts_inside_each_other_and_tensors_beside_them_are_read(
    tmp_path: Path, zipped: bool
) -> None:
    shared = {"b": torch.arange(3), "none": None}
    modules = {"unet": {"a": torch.ones(2).half(), "deep": {"er": shared}}, "again": shared}
    optimizer = {"state": {0: {"m": torch.zeros(5)}}, "groups": [torch.zeros(7).double()]}
    path = tmp_path / "x.pt"
    torch.save(
        {"model": modules, "optimizer": optimizer, "last": torch.ones(4)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    file = open_checkpoint(path)
    found = {name: file.read(name).tolist() for name in file.tensors}
    assert found == {
        "model.unet.a": [1, 1], "model.unet.deep.er.b": [0, 1, 2], "last": [1, 1, 1, 1]
    }  # fmt: skip


def test_dicts_that_hold_themselves_end(tmp_path: Path) -> None:
    around: dict[str, Any] = {"a": torch.ones(2)}
    around["self"] = around
    torch.save(around, tmp_path / "x.pt")
    assert list(open_checkpoint(tmp_path / "x.pt").tensors) == ["a"]


def refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def repacked(path: Path, new: Path, **changes: Any) -> Path:
    """Copy a zip, changing names, contents or the compression of its entries."""
    compression = changes.get("compression", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", compression) as made:
        for entry in old.infolist():
            name = changes.get("rename", lambda n: n)(entry.filename)
            if name is not None:
                content = changes.get("contents", {}).get(name, old.read(entry))
                made.writestr(name, content)
    return new


def test_what_torch_never_writes_is_refused(tmp_path: Path) -> None:
    good = save(tmp_path / "good.ckpt", {"a": torch.ones(4)})
    new = tmp_path / "bad.ckpt"
    refused(repacked(good, new, compression=zipfile.ZIP_DEFLATED), "compressed")
    refused(repacked(good, new, rename=lambda n: f"../{n}"), "entry named")
    refused(repacked(good, new, rename=lambda n: None if n.endswith("pkl") else n), "0 entries")
    refused(repacked(good, new, rename=lambda n: None if "data/0" in n else n), "are missing")
    refused(repacked(good, new, contents={"good/data/0": b"1234"}), "does not fit its storage")
    refused(repacked(good, new, contents={"good/byteorder": b"big"}), "big-endian")
    refused(repacked(good, new, contents={"good/data.pkl": b"\x80\x02}q\x00"}), "not a whole")


def test_tensors_that_torch_would_not_store_so_are_refused(tmp_path: Path) -> None:
    expanded = torch.ones(1).expand(10_000_000)
    refused(save(tmp_path / "a.pt", {"a": expanded}), "does not fit its storage")
    refused(save(tmp_path / "b.pt", {"b": torch.ones(2, dtype=torch.complex64)}), "ComplexFloat")
    refused(save(tmp_path / "c.pt", {"c": 3}), "without a state dict")
    refused(save(tmp_path / "d.pt", torch.nn.Linear(2, 2)), "without a state dict")


BOMBS = {
    "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "bytes": b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "doubling": b"\x80\x02)" + b"2\x86" * 1000 + b"93.",
    "extension": b"\x80\x02\x82\x01.",
    "endless": b"\x80\x02" + b"N0" * MOST_INSTRUCTIONS + b".",
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_pickle_that_would_take_memory_or_time_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bomb.ckpt"
    path.write_bytes(BOMBS[case])
    refused(path, "damaged or foreign pickle")


OPCODES = st.sampled_from(
    [bytes([code]) for code in b"()]}.0129NIJKMFGTUX\x85\x86\x87qrhj\x94cRsuabetl\x93Q"]
)


@given(st.lists(OPCODES | st.binary(max_size=3), max_size=30))
def test_no_program_at_all_causes_anything_but_a_program_error(program: list[bytes]) -> None:
    with contextlib.suppress(ProgramError):
        run(BytesIO(b"".join(program)), lambda function, _: Placeholder(function))
