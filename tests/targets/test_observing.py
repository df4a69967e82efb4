"""The ranges of a network's tensors, from running it."""

from pathlib import Path

import numpy as np
import pytest

from converter.weights import Array
from targets.base import ToolchainError
from targets.calibration import CalibrationData
from targets.sophgo import observing
from targets.sophgo.observing import SAMPLES, Range, Spread, observe
from tests.passes.graphs import WEIGHTS_FILE, parse, to_bytes, write_weights

NETWORK = """
net (float[1,2] x) => (float[1,3] z)
<float[2,2] A = WEIGHT, float[2] b = WEIGHT, float[2,3] C = WEIGHT>
{
    y = MatMul(x, A)
    biased = Add(y, b)
    above = Relu(biased)
    squared = Mul(above, above)
    z = MatMul(squared, C)
}"""

VALUES = {
    "A": np.array([[1, 0], [0, 2]], np.float32),
    "b": np.array([-1, 0.5], np.float32),
    "C": np.array([[1, 1, 1], [0, 0, 0.5]], np.float32),
}


def network(folder: Path) -> Path:
    model = parse(NETWORK)
    write_weights(model, folder, VALUES)
    (folder / "net.onnx").write_bytes(to_bytes(model))
    return folder / "net.onnx"


def data(folder: Path, *samples: list[float]) -> CalibrationData:
    folder.mkdir()
    for number, sample in enumerate(samples):
        np.savez(folder / f"{number:04d}.npz", x=np.array([sample], np.float32))
    return CalibrationData.of(folder)


def seen(folder: Path, *samples: list[float], everything: bool = False) -> dict[str, Range]:
    graph = network(folder)
    told: list[float] = []
    found = observe(
        graph,
        folder / WEIGHTS_FILE,
        data(folder / "data", *samples),
        told.append,
        everything=everything,
    )
    assert told == sorted(told) and told[-1] == 1
    return found


@pytest.mark.parametrize("at_once", [1, 3 << 30], ids=["one at a time", "all at once"])
def test_what_products_take_and_give_is_seen(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "AT_ONCE", at_once)
    found = seen(tmp_path, [1.0, -2.0], [3.0, 0.5])
    assert {name: (one.low, one.high) for name, one in found.items()} == {
        "x": (-2, 3),
        "y": (-4, 3),
        "biased": (-3.5, 2),
        "squared": (0, 4),
        "z": (0, 5.125),
    }


def test_everything_is_seen_where_it_is_asked_for(tmp_path: Path) -> None:
    found = seen(tmp_path, [1.0, -2.0], everything=True)
    assert [*found] == ["x", "y", "biased", "above", "squared", "z"]


def test_samples_are_taken_at_even_distances(tmp_path: Path) -> None:
    """The last of many, and not the one beside it."""
    samples = [[0.0, 1.0] for _ in range(3 * SAMPLES)]
    samples[-1], samples[-2] = [5.0, 0.0], [9.0, 0.0]
    assert seen(tmp_path, *samples)["x"].high == 5


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_values_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="infinite values or NaN in x, y, biased"):
        seen(tmp_path, [1.0, value])


def spread(*samples: Array, energy: Array | None = None) -> Range:
    one = Spread()
    for sample in samples:
        one.add(sample, energy)
    return one.range()


def test_a_rare_large_value_is_cut_off() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[0] = 12
    found = spread(values)
    assert found.high == 12
    assert 4 < found.threshold < 9
    assert spread(np.linspace(-1, 1, 1000, dtype=np.float32)).threshold > 0.97


def test_a_value_counts_as_much_as_what_it_is_multiplied_by() -> None:
    """A channel whose weights are large keeps its largest value."""
    values = np.random.default_rng(0).standard_normal((10_000, 2)).astype(np.float32)
    values[0] = [12, 0]
    light, heavy = np.array([0.01, 1], np.float32), np.array([100, 0.01], np.float32)
    assert spread(values, energy=light).threshold < spread(values, energy=heavy).threshold


def test_each_sample_counts_the_same_whatever_its_size() -> None:
    """Steps that suit large values leave nothing of small ones."""
    rng = np.random.default_rng(0)
    large, small = (s * rng.standard_normal(10_000).astype(np.float32) for s in (10, 0.1))
    assert spread(large, small).threshold < 0.7 * spread(large, large).threshold


def test_a_tensor_of_zeros_has_no_range() -> None:
    assert spread(np.zeros(4, np.float32)) == Range(0, 0, 0)
