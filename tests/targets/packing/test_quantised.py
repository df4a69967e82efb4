"""Codes, scales and zero points of W8 and W4, element by element by the formulas."""

from fractions import Fraction
from math import floor

import ml_dtypes
import numpy as np
import pytest

from targets.sophgo.packing.layouts import DTYPES, LAYOUTS
from targets.sophgo.packing.learning import NotLearnedError, RegionTensor, learn
from targets.sophgo.packing.weight_map import PackedWeight
from targets.sophgo.precisions import GROUP


def half_away(value: float) -> int:
    exact = Fraction(float(value))
    return floor(exact + Fraction(1, 2)) if exact >= 0 else -floor(-exact + Fraction(1, 2))


def by_the_formulas(
    matrix: np.ndarray, bits: int
) -> tuple[list[list[int]], list[list[np.float32]], list[list[int]]]:
    """Codes per output; scales and zero points per output and group."""
    levels = 2**bits - 1
    codes: list[list[int]] = []
    scales: list[list[np.float32]] = []
    zeros: list[list[int]] = []
    for column in matrix.T:
        groups = [column[at : at + GROUP] for at in range(0, len(column), GROUP)]
        scales.append([])
        zeros.append([])
        codes.append([])
        for group in groups:
            scale = np.float32(
                max(group.max() - group.min(), np.float32(1e-5)) / np.float32(levels)
            )
            zero = min(max(-half_away(group.min() / scale), 0), levels)
            scales[-1].append(scale)
            zeros[-1].append(zero)
            codes[-1] += [min(max(half_away(w / scale) + zero, 0), levels) for w in group]
    return codes, scales, zeros


def matrix(inputs: int, outputs: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    values = rng.standard_normal((inputs, outputs)).astype(np.float32)
    values[:GROUP, 0] = 0.25  # all the same: the smallest scale there is
    values[:, 1] = np.abs(values[:, 1]) + 1  # nothing below zero: the zero point is cut off
    return values


@pytest.mark.parametrize("shape", [(64, 6), (192, 6)])
def test_codes(shape: tuple[int, int]) -> None:
    values = matrix(*shape)
    codes, _, _ = by_the_formulas(values, 8)
    packed = PackedWeight(0, "w", (), "codes-8", "ui8").pack(values)
    assert packed.tolist() == [code for row in codes for code in row]
    codes, _, _ = by_the_formulas(values, 4)
    packed = PackedWeight(0, "w", (), "codes-4", "ui8").pack(values)
    pairs = [(row[i], row[i + 1]) for row in codes for i in range(0, len(row), 2)]
    assert packed.tolist() == [low | high << 4 for low, high in pairs]
    assert PackedWeight(0, "w", (), "codes-4", "ui8").nbytes(shape) == packed.size


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("units", [32, 64])
def test_scales_and_zero_points_are_dealt_to_the_units(units: int, bits: int) -> None:
    values = matrix(128, 128)
    _, scales, zeros = by_the_formulas(values, bits)
    order = [at + unit for unit in range(units) for at in range(0, 128, units)]
    packed = PackedWeight(0, "w", (), f"scales-{bits}-{units}", "bf16").pack(values)
    expected = np.array([scales[output] for output in order], np.float32)
    assert packed.tobytes() == expected.astype(ml_dtypes.bfloat16).tobytes()
    packed = PackedWeight(0, "w", (), f"zeros-{bits}-{units}", "ui8").pack(values)
    assert packed.tolist() == [zero for output in order for zero in zeros[output]]


def test_a_matrix_may_lie_the_other_way_round() -> None:
    values = matrix(128, 64)
    for layout, dtype in (("codes-4", "ui8"), ("scales-8-32", "f16"), ("zeros-8-64", "ui8")):
        packed = PackedWeight(0, "w", (), layout, dtype).pack(values)
        turned = PackedWeight(0, "w", (), f"{layout}-turned", dtype).pack(values.T.copy())
        assert turned.tolist() == packed.tolist()


def test_groups_are_whole() -> None:
    assert not LAYOUTS["codes-8"].takes((96, 64))
    assert LAYOUTS["codes-8"].takes((128, 96))
    assert LAYOUTS["codes-8-turned"].takes((96, 128))
    assert not LAYOUTS["codes-8-turned"].takes((128, 96))


@pytest.mark.parametrize(
    "layout",
    ["codes-8", "codes-4", "codes-8-turned", "scales-8-64", "scales-4-32-turned", "zeros-4-32"],
)
def test_what_comes_first_is_made_of_one_output(layout: str) -> None:
    values = matrix(128, 128)
    first = LAYOUTS[layout].first
    assert first is not None
    dtype = "f16" if layout.startswith("scales") else "ui8"
    whole = PackedWeight(0, "w", (), layout, dtype).pack(values)
    part = PackedWeight(0, "w", (), layout, dtype).pack(first(values))
    assert part.tolist() == whole[: part.size].tolist()


def test_quantised_weights_are_found_whole_cut_and_turned() -> None:
    placeholders = {"a.weight": matrix(64, 96), "b.weight": matrix(128, 64).T.copy()}
    others = {name: values + 1 for name, values in placeholders.items()}
    wanted = {
        "linear_uint": PackedWeight(0, "a.weight", ((0, 64), (0, 64)), "codes-8", "ui8"),
        "linear_reordered": PackedWeight(0, "a.weight", ((0, 64), (0, 64)), "scales-8-64", "f16"),
        "linear_1_reordered": PackedWeight(0, "a.weight", ((0, 64), (0, 64)), "zeros-8-64", "ui8"),
        "rest": PackedWeight(0, "a.weight", ((0, 64), (64, 96)), "codes-8", "ui8"),
        "gemm_uint": PackedWeight(0, "b.weight", (), "codes-8-turned", "ui8"),
    }
    page = 8192
    region = np.zeros(page * len(wanted), np.uint8)
    tensors = []
    for at, (name, weight) in enumerate(wanted.items()):
        raw = weight.pack(placeholders[weight.source])
        region[page * at :][: raw.size] = raw
        count = raw.size // DTYPES[weight.dtype].itemsize
        tensors.append(RegionTensor(name, (count,), weight.dtype, page * at))
    weight_map = learn(region, tensors, placeholders, [])
    for found, weight in zip(weight_map.weights, wanted.values(), strict=True):
        packed = found.pack(others[found.source])
        assert packed.tolist() == weight.pack(others[weight.source]).tolist()
    region[page * 3 + 5] ^= 1
    with pytest.raises(NotLearnedError, match="1 of 5 packed weights are in no known form: rest"):
        learn(region, tensors, placeholders, [])
