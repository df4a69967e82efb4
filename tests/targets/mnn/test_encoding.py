"""The formats of weights against their definitions, written out by hand."""

import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from converter.weights import Array
from targets.mnn import encoding
from targets.mnn.encoding import Encoding, quantised, rounded, without_denormals
from targets.mnn.hqq import half_quadratic

WEIGHTS = np.array([[-1.0, 0.0, 0.5, 2.0], [3.0, 3.0, 3.0, 3.0]], np.float32)


def test_eight_bits_written_out() -> None:
    scale = np.float32(3) / np.float32(255)
    wanted = (
        bytes([2])
        + struct.pack("<HH", 2, 4)
        + bytes([0])  # 256 values
        + np.arange(-128, 128).astype(np.int8).tobytes()
        + bytes([0, 85, 128, 255])  # round(1 / scale), round(1.5 / scale): a half goes up
        + bytes(4)  # a flat group is its least value
        + struct.pack("<ffff", -1, scale, 3, 0)
    )
    assert Encoding(8, 4).encode(WEIGHTS).tobytes() == wanted
    assert Encoding(8, 4).nbytes(8) == len(wanted)


def test_four_bits_written_out() -> None:
    scale = np.float32(3) / np.float32(15)
    wanted = (
        bytes([2])
        + struct.pack("<HH", 2, 4)
        + bytes([16])
        + np.arange(-8, 8).astype(np.int8).tobytes()
        + bytes([0x05, 0x8F, 0, 0])  # 0, 5 | 7.5 -> 8, 15
        + struct.pack("<ffff", -1, scale, 3, 0)
    )
    assert Encoding(4, 4).encode(WEIGHTS).tobytes() == wanted
    assert Encoding(4, 4).nbytes(8) == len(wanted)


def test_many_groups_have_wide_dimensions() -> None:
    packed = Encoding(8, 16).encode(np.zeros((70_000, 16), np.float32))
    assert packed[:9].tobytes() == bytes([2]) + struct.pack("<II", 70_000, 16)
    assert len(packed) == Encoding(8, 16).nbytes(70_000 * 16)


def test_half_precision_is_rounded_to_the_nearest_and_saturates() -> None:
    values = np.array([1 + 0.9 * 2**-10, -1e6, 1e-9], np.float32)
    found = Encoding(16).encode(values).view("<f2")
    assert found.tolist() == [1 + 2**-10, -65504, 0]


@pytest.mark.parametrize("bits", [8, 4])
def test_chunks_make_no_difference(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((7, 3 * 64), np.float32)
    whole = Encoding(bits, 64).encode(values)
    monkeypatch.setattr(encoding, "CHUNK", 400)
    assert np.array_equal(Encoding(bits, 64).encode(values), whole)


@given(arrays.arrays(np.float32, (5, 8), elements=st.floats(-4, 4, width=32)))
def test_codes_are_within_half_a_step(rows: Array) -> None:
    for quantise in (quantised, half_quadratic):
        codes, scales = quantise(rows, 8)
        assert codes.max() <= 255
        back = scales[:, :1] + codes * scales[:, 1:]
        step, wide = scales[:, 1:], np.ptp(rows, axis=1)[:, None]
        limit = 0.51 if quantise is quantised else 2.0  # whose zero point may leave the range
        allowed = np.where(step > encoding.FLAT, limit * step, wide)  # a flat group is one value
        assert (np.abs(back - rows) <= allowed + 1e-6).all()


def test_hqq_is_nearer_on_average() -> None:
    rows = np.random.default_rng(0).standard_normal((512, 64), np.float32)
    errors = []
    for quantise in (quantised, half_quadratic):
        codes, scales = quantise(rows, 4)
        errors.append(float(np.square(scales[:, :1] + codes * scales[:, 1:] - rows).mean()))
    assert errors[1] < errors[0]


def test_a_half_is_rounded_away_from_zero() -> None:
    values = np.array([0.5, 1.5, -0.5, 2.49, np.nextafter(np.float32(0.5), 0)], np.float32)
    assert rounded(values).tolist() == [1, 2, -1, 2, 0]


def test_denormals_become_zeros_without_a_sign() -> None:
    values = np.array([1e-39, -1e-40, 2e-38, 0, -0.0], np.float32)
    found = without_denormals(values)
    assert found.tolist() == [0, 0, np.float32(2e-38), 0, 0]
    assert not np.signbit(found).any()
    assert without_denormals(values[2:3]) is not None


def test_names_tell_encodings() -> None:
    for one in (Encoding(32), Encoding(16), Encoding(8, 576)):
        assert Encoding.parse(one.name) == one
