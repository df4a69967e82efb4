from pathlib import Path

import pytest

from passes import split_feed_forward
from passes.split_feed_forward import SplitFeedForwardPass
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

GATED = """
gated (float[1,5,3] x) => (float[1,5,3] y)
<float[3,16] W = WEIGHT, float[16] b = WEIGHT, float[8,3] V = WEIGHT, float[3] c = WEIGHT,
 float root = {1.5}>
{
    wide = MatMul(x, W)
    biased = Add(wide, b)
    value, gate = Split<axis: int = 2, num_outputs: int = 2>(biased)
    scaled = Div(gate, root)
    error = Erf(scaled)
    open = Mul(gate, error)
    hidden = Mul(value, open)
    narrow = MatMul(hidden, V)
    y = Add(narrow, c)
}"""


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_feed_forward, "LARGE", 3 * 16)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("Add(narrow, c)", "Add(c, narrow)"),
        ("Add(wide, b)", "Add(b, wide)"),
        ("Add(narrow, c)", "Relu(narrow)"),  # no bias behind it
    ],
)
def test_a_gated_layer_becomes_a_sum_over_four_parts(tmp_path: Path, old: str, new: str) -> None:
    model = parse(GATED.replace(old, new) if old else GATED)
    inputs = random_inputs(model)
    write_weights(model, tmp_path, random_weights(model))
    before = run(model, inputs, tmp_path)
    assert apply(SplitFeedForwardPass, model).report.fired == 1
    assert operators(model).count("MatMul") == 3 * 4
    assert operators(model).count("Split") == 0
    assert_equal(run(model, inputs, tmp_path), before, rtol=1e-6)


def test_a_part_is_named_after_its_weight() -> None:
    model = parse(GATED)
    apply(SplitFeedForwardPass, model)
    parts = [n.outputs[0].name for n in model.graph if n.op_type == "Slice"]
    assert parts[:3] == ["V.0-2", "W.0-2", "b.0-2"]
    assert "W.14-16" in parts


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Mul(gate, error)", "MatMul(gate, error)", "uses the halves otherwise"),
        ("Mul(value, open)", "Mul(value, each)", "uses the halves otherwise"),
        ("y)\n<", "y, float[1,5,8] gate)\n<", "an output of the graph needs the whole"),
        ("y)\n<", "y, float[1,5,16] wide)\n<", "an output of the graph needs the whole"),
    ],
)
def test_a_layer_that_is_used_otherwise_is_refused(old: str, new: str, reason: str) -> None:
    text = GATED.replace(old, new)
    if "each" in new:
        text = text.replace("float root", "float[8] each = WEIGHT, float root")
    if "MatMul(gate" in new:
        text = text.replace("scaled = Div(gate, root)", "scaled = Transpose<perm=[0,2,1]>(gate)")
    one = apply(SplitFeedForwardPass, parse(text))
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason


def test_hidden_channels_that_do_not_come_apart_evenly_are_refused() -> None:
    text = GATED.replace("[3,16]", "[3,18]").replace("[16]", "[18]").replace("[8,3]", "[9,3]")
    one = apply(SplitFeedForwardPass, parse(text))
    assert "9 hidden channels" in one.report.refusals[0].reason


def test_a_small_layer_is_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_feed_forward, "LARGE", 3 * 16 + 1)
    one = apply(SplitFeedForwardPass, parse(GATED))
    assert (one.report.fired, one.report.refusals) == (0, [])
