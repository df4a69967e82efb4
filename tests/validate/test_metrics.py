"""Every metric against its definition, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validate.base import Agreement
from validate.metrics import EXACT_DB, decibels, measure


def agreement(output: list[float], reference: list[float]) -> Agreement:
    measured = measure(np.array(output, np.float32), np.array(reference, np.float32))
    assert measured.agreement is not None
    return measured.agreement


def test_definitions() -> None:
    found = agreement([3.0, 4.0], [3.0, 5.0])
    assert found.max_abs_error == 1.0
    assert found.cosine == pytest.approx(29 / (5 * math.sqrt(34)))
    assert found.psnr_db == pytest.approx(20 * math.log10(5 / math.sqrt(0.5)))
    assert found.sqnr_db == pytest.approx(20 * math.log10(math.sqrt(34)))
    assert found.gain == pytest.approx(29 / 34)


def test_no_error_is_a_large_finite_number_of_decibels() -> None:
    found = agreement([1.0, -2.0], [1.0, -2.0])
    assert (found.psnr_db, found.sqnr_db) == (EXACT_DB, EXACT_DB)
    assert found.max_abs_error == 0.0
    assert [found.cosine, found.gain] == pytest.approx([1, 1])
    assert decibels(1.0, 0.0) == EXACT_DB


def test_zeros_have_no_direction() -> None:
    found = agreement([0.0, 0.0], [1.0, 1.0])
    assert [found.cosine, found.gain, found.sqnr_db] == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(
    ("output", "reference", "problem"),
    [
        ([1.0, math.nan], [1.0, 1.0], "1 of 2 values are NaN or Inf"),
        ([-math.inf, math.inf], [1.0, 1.0], "2 of 2 values"),
        ([1.0], [1.0, 1.0], "shape is [1] where [2] was expected"),
        ([], [], "empty"),
        ([0.0, 0.0], [0.0, 0.0], "all zeros"),
        ([1.0, 1.0], [1.0, math.nan], "the weights are broken"),
    ],
)
def test_what_cannot_be_compared_gets_no_numbers(
    output: list[float], reference: list[float], problem: str
) -> None:
    measured = measure(np.array(output, np.float32), np.array(reference, np.float32))
    assert measured.agreement is None
    assert problem in (measured.problem or "")


def test_nan_and_inf_are_counted_apart() -> None:
    measured = measure(np.array([np.nan, np.inf, -np.inf, 1.0]), np.ones(4))
    assert (measured.nan, measured.inf, measured.count, measured.peak) == (1, 2, 4, 1.0)


def test_sums_are_in_float64() -> None:
    """A million equal float32 errors add up without loss."""
    reference = np.ones(1_000_000, np.float32)
    found = measure(reference + np.float32(2**-20), reference).agreement
    assert found is not None
    assert found.psnr_db == pytest.approx(20 * math.log10(2**20), abs=1e-9)


@given(st.floats(0.01, 100), st.floats(-0.9, 0.9))
def test_decibels_do_not_depend_on_the_unit(unit: float, error: float) -> None:
    reference = np.array([1.0, -0.5, 0.25])
    output = reference + error * np.array([1.0, 0.5, -1.0])
    one, other = (
        measure(output, reference).agreement,
        measure(output * unit, reference * unit).agreement,
    )
    assert one is not None and other is not None
    assert other.psnr_db == pytest.approx(one.psnr_db, abs=1e-6)
    assert other.gain == pytest.approx(one.gain)
