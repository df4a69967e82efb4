"""Scales of quantised weights: every spelling is attached, and one that fits nothing is refused."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from converter.checkpoint import Checkpoint, TensorInfo
from converter.containers.opening import open_checkpoint
from converter.errors import InputError
from converter.inspection import ComponentFacts

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).to(torch.float8_e4m3fn)


def opened(path: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
    safetensors.torch.save_file(tensors, path)
    return open_checkpoint(path)


@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (torch.tensor(0.5), [[0.5, 1.0], [1.5, 2.0]]),
        (torch.tensor([0.5]), [[0.5, 1.0], [1.5, 2.0]]),
        (torch.tensor([[1.0], [2.0]]), [[1.0, 2.0], [6.0, 8.0]]),
    ],
)
def test_a_scale_is_multiplied_out(
    tmp_path: Path, ending: str, scale: torch.Tensor, expected: list[list[float]]
) -> None:
    tensors = {"x.weight": WEIGHT, f"x.{ending}": scale, "x.input_scale": torch.ones(1)}
    tensors["scaled_fp8"] = torch.zeros(0).to(torch.float8_e4m3fn)
    file = opened(tmp_path / "x", tensors)
    assert list(file.tensors) == ["x.weight"]
    assert file.read("x.weight").dtype == np.float32
    np.testing.assert_array_equal(file.read("x.weight"), expected)
    assert ComponentFacts.of(file.tensors).dtype == "F8_E4M3, scaled"


def test_float8_without_a_scale_stays_as_it_is(tmp_path: Path) -> None:
    file = opened(tmp_path / "x", {"x.weight": WEIGHT})
    assert file.read("x.weight").dtype == ml_dtypes.float8_e4m3fn
    assert file.tensors["x.weight"].scale is None


@pytest.mark.parametrize(
    "tensors",
    [
        {"x.scale_weight": torch.ones(1)},
        {"x.weight": WEIGHT, "x.scale_weight": torch.ones(3)},
        {"x.weight": WEIGHT, "x.scale_weight": torch.ones(0)},
    ],
)
def test_a_scale_that_fits_no_weight_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(InputError, match=r"x\.scale_weight.*stands beside"):
        opened(tmp_path / "x", tensors)


def test_a_scale_is_part_of_what_the_values_depend_on() -> None:
    file = Path("x")
    scales = [TensorInfo("F32", (), begin, begin + 4, file) for begin in (8, 12)]
    plain = [TensorInfo("F8_E4M3", (4,), 0, 4, file, scale=scale) for scale in (None, *scales)]
    assert len({str(info.content({file: "hash"})) for info in plain}) == 3
