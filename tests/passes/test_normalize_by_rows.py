from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.weights import Array
from passes import normalize_by_rows
from passes.normalize_by_rows import NormalizeByRowsPass
from tests.passes.graphs import (
    apply,
    assert_equal,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    write_weights,
)

NORM = """
norm (float[1,4,3,8] x) => (float[1,4,3,8] y)
<float[4,1,1] gamma = WEIGHT, float[4,1,1] beta = WEIGHT, float[2] ones = {1, 1},
 float[2] zeros = {0, 0}, int64[3] flat = {1, 2, 48}, int64[4] back = {1, 4, 3, 8}>
{
    groups = Reshape(x, flat)
    normed = InstanceNormalization<epsilon: float = 0.00001>(groups, ones, zeros)
    apart = Reshape(normed, back)
    scaled = Mul(apart, gamma)
    y = Add(scaled, beta)
}"""


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalize_by_rows, "LARGE", 0)


def rewritten(model: ir.Model) -> NormalizeByRowsPass:
    return apply(NormalizeByRowsPass, model)


def picture(kind: str) -> Array:
    """[1, 4, 3, 8] float32, of every kind that could go wrong with 16 bits, too."""
    x = np.random.default_rng(2).standard_normal((1, 4, 3, 8)).astype(np.float32)
    kinds = {
        "ordinary": x,
        "constant": np.full_like(x, 3.5),
        "zero": np.zeros_like(x),
        "far from zero": x + 200,
        "large": 2e4 * x,
        "small": 1e-4 * x,
        "one large number": np.where(np.arange(8) == 3, 6e4, x).astype(np.float32),
        "rows of different sizes": x * np.array([1e-3, 1, 1e3], np.float32)[:, None],
    }
    return kinds[kind]


KINDS = (
    "ordinary",
    "constant",
    "zero",
    "far from zero",
    "large",
    "small",
    "one large number",
    "rows of different sizes",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_norm_computes_the_same(tmp_path: Path, kind: str) -> None:
    model = parse(NORM)
    write_weights(model, tmp_path, random_weights(model))
    inputs = {"x": picture(kind)}
    before = run(model, inputs, tmp_path)
    assert rewritten(model).report.fired == 1
    assert "InstanceNormalization" not in operators(model)
    # float32 holds 200 + x to 8e-6; the old form loses as much as the new one.
    assert_equal(run(model, inputs, tmp_path), before, rtol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_number_leaves_the_range_of_16_bits(tmp_path: Path, kind: str) -> None:
    model = parse(NORM)
    write_weights(model, tmp_path, random_weights(model))
    rewritten(model)
    for node in model.graph:
        model.graph.outputs.extend(v for v in node.outputs if not v.is_graph_output())
        for value in node.outputs:
            value.name = value.name or f"step_{id(value)}"
    for name, values in run(model, {"x": picture(kind)}, tmp_path).items():
        assert np.abs(values).max() < 65504, name


def test_a_batch_is_normed_one_by_one(tmp_path: Path) -> None:
    model = parse(
        NORM.replace("[1,4,3,8]", "[2,4,3,8]")
        .replace("flat = {1,", "flat = {2,")
        .replace("back = {1,", "back = {2,")
    )
    write_weights(model, tmp_path, random_weights(model))
    inputs = random_inputs(model)
    before = run(model, inputs, tmp_path)
    assert rewritten(model).report.fired == 1
    assert_equal(run(model, inputs, tmp_path), before, rtol=1e-5)


def test_small_norms_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalize_by_rows, "LARGE", 4 * 3 * 8 + 1)
    one = rewritten(parse(NORM))
    assert (one.report.fired, one.report.refusals) == (0, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ones = {1, 1}", "ones = {1, 2}"),
        ("zeros = {0, 0}", "zeros = {0, 1}"),
        ("Mul(apart, gamma)", "Mul(apart, apart)"),
        ("Mul(apart, gamma)", "Add(apart, gamma)"),
    ],
)
def test_other_norms_are_left_alone(old: str, new: str) -> None:
    one = rewritten(parse(NORM.replace(old, new)))
    assert (one.report.fired, one.report.refusals) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("float[1,4,3,8] x", "float[1,4,3,width] x", "not static"),
        ("y)\n", "y, float[1,4,3,8] apart)\n", "also used otherwise"),
    ],
)
def test_an_obstacle_is_refused_with_the_reason(old: str, new: str, reason: str) -> None:
    one = rewritten(parse(NORM.replace(old, new)))
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason
