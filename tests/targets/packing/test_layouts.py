"""Layouts and weight maps, element by element: loops beside the array operations."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from targets.sophgo.packing.layouts import DTYPES, LAYOUTS
from targets.sophgo.packing.weight_map import Constant, PackedWeight, WeightMap


def filter_in_lanes(values: np.ndarray, lanes: int, folded: str) -> list[float]:
    """A filter as the chip keeps it, by the formula for each of its elements."""
    outputs, inputs, height, width = values.shape
    split = {"": 1, "-rows": height, "-window": height * width}[folded]
    taps = height * width // split
    groups = -(-inputs * split // lanes)
    packed = []
    for output in range(outputs):
        for group in range(groups):
            for tap in range(taps):
                for lane in range(lanes):
                    channel = group * lanes + lane  # an input, or a place of an input's window
                    if channel >= inputs * split:
                        packed.append(0.0)
                        continue
                    inside = channel % split * taps + tap
                    row, column = divmod(inside, width)
                    packed.append(float(values[output, channel // split, row, column]))
    return packed


@pytest.mark.parametrize("lanes", [16, 32, 64])
@pytest.mark.parametrize("folded", ["", "-rows", "-window"])
@pytest.mark.parametrize("shape", [(3, 4, 3, 3), (2, 40, 1, 1), (2, 33, 3, 3), (1, 3, 2, 3)])
def test_filters(shape: tuple[int, ...], folded: str, lanes: int) -> None:
    values = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    layout = LAYOUTS[f"filter{folded}-{lanes}"]
    packed = layout.arrange(values)
    assert packed.reshape(-1).tolist() == filter_in_lanes(values, lanes, folded)
    assert layout.count(shape) == packed.size
    first = layout.arrange(values[:1]).reshape(-1)
    assert first.tolist() == packed.reshape(-1)[: first.size].tolist()


@pytest.mark.parametrize("lanes", [16, 32])
def test_a_scale_is_a_convolution_by_a_diagonal(lanes: int) -> None:
    values = np.arange(1, 33, dtype=np.float32)
    layout = LAYOUTS[f"diagonal-{lanes}"]
    matrix = np.diag(values).reshape(32, 32, 1, 1)
    for shape in ((32,), (32, 1, 1)):
        packed = layout.arrange(values.reshape(shape))
        assert packed.reshape(-1).tolist() == filter_in_lanes(matrix, lanes, "")
        assert layout.count(shape) == packed.size


def test_a_part_is_cut_cast_and_turned() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4) + 0.3
    weight = PackedWeight(0, "w", ((1, 3), (0, 2)), "transposed", "f16")
    expected = values[1:3, 0:2].T.astype(np.float16)
    assert weight.pack(values).tobytes() == expected.tobytes()
    assert weight.nbytes(values.shape) == expected.nbytes


def test_bf16_rounds_to_nearest_even() -> None:
    # 1 + 2**-8 lies half-way between two bfloat16 values, as does 1 + 3 * 2**-8.
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)
    packed = PackedWeight(0, "w", (), "same", "bf16").pack(values)
    assert packed.view(ml_dtypes.bfloat16).astype(float).tolist() == [1.0, 1.015625, 1.0078125]
    assert DTYPES["bf16"].itemsize == 2


def test_a_map_is_saved_and_read(tmp_path: Path) -> None:
    whole = PackedWeight(0, "a", (), "same", "f32")
    part = PackedWeight(64, "b", ((0, 2), (1, 3)), "transposed", "f16")
    weight_map = WeightMap(4096, (whole, part), (Constant(128, b"\x00\x01"),))
    weight_map.save(tmp_path)
    again = WeightMap.load(tmp_path)
    assert again == weight_map
    assert again.identity == weight_map.identity
    moved = WeightMap(4096, (whole,), (Constant(128, b"\x00\x01"),))
    assert moved.identity != weight_map.identity
