from pathlib import Path

import pytest

from passes.compute_on_pictures import ComputeOnPicturesPass
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

TRANSFORMER = """
transformer (float[1,4,2,3] picture) => (float[1,4,2,3] y)
<float[4,8] W = WEIGHT, float[8] b = WEIGHT, float[4,4] V = WEIGHT, float[4] c = WEIGHT,
 float[4,4,1,1] P = WEIGHT, float[4] d = WEIGHT, float two = {2.0},
 int64[3] flat = {1, 6, 4}, int64[4] apart = {1, 2, 3, 4}>
{
    turned = Transpose<perm: ints = [0, 2, 3, 1]>(picture)
    tokens = Reshape(turned, flat)
    up = MatMul(tokens, W)
    wide = Add(up, b)
    one, other = Split<axis: int = -1, num_outputs: int = 2>(wide)
    halved = Div(other, two)
    gate = Erf(halved)
    gated = Mul(one, gate)
    down = MatMul(gated, V)
    thin = Add(down, c)
    sum = Add(thin, tokens)
    rows = Reshape(sum, apart)
    back = Transpose<perm: ints = [0, 3, 1, 2]>(rows)
    y = Conv(back, P, d)
}"""


def rewrite(text: str, folder: Path) -> tuple[ComputeOnPicturesPass, list[str]]:
    """Run the pass, compare numerics, and see to it that a second run finds nothing to do."""
    model = parse(text)
    write_weights(model, folder, random_weights(model))
    inputs = random_inputs(model)
    before = run(model, inputs, folder)
    one = apply(ComputeOnPicturesPass, model)
    assert_equal(run(model, inputs, folder), before, rtol=1e-6)
    return one, operators(model)


def test_a_transformer_stays_a_picture(tmp_path: Path) -> None:
    one, left = rewrite(TRANSFORMER, tmp_path)
    # two linear layers, a split, a division, erf, a product, a sum, and back to a picture
    assert one.report.fired == 8
    assert left.count("Conv") == 3
    assert "MatMul" not in left
    # what is left to transpose are the two weights
    assert left.count("Transpose") == 2


def test_who_wants_tokens_gets_them(tmp_path: Path) -> None:
    text = TRANSFORMER.replace("3] y)", "3] y, float[1,6,4] sum)")
    _, left = rewrite(text, tmp_path)
    assert left.count("Conv") == 3
    assert left.count("Transpose") == 3


def test_a_linear_layer_of_tokens_alone_needs_a_bias(tmp_path: Path) -> None:
    layer = """
    layer (float[1,6,4] tokens) => (float[1,6,5] y)
    <float[4,5] W = WEIGHT, float[5] b = WEIGHT>
    {
        y = MatMul(tokens, W)
    }"""
    one, _ = rewrite(layer, tmp_path)
    assert one.report.fired == 0
    with_bias = layer.replace("y = MatMul(tokens, W)", "p = MatMul(tokens, W) y = Add(p, b)")
    one, left = rewrite(with_bias, tmp_path)
    assert one.report.fired == 1
    assert "Conv" in left


def test_more_than_one_picture_is_refused(tmp_path: Path) -> None:
    text = TRANSFORMER.replace("[1,", "[2,").replace("{1, ", "{2, ")
    one, _ = rewrite(text, tmp_path)
    assert {r.reason for r in one.report.refusals} == {"a batch of 2 needs a picture each"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mul(one, gate)", "Softmax<axis: int = 1>(gate)"),  # no operator element by element
        ("Split<axis: int = -1,", "Split<axis: int = 1,"),  # not by channels
    ],
)
def test_what_is_no_part_of_it_is_left(old: str, new: str, tmp_path: Path) -> None:
    if "axis: int = 1," in new:
        text = TRANSFORMER.replace(old, new).replace("[4,8] W", "[4,4] W").replace("[8] b", "[4] b")
        text = text.replace("flat = {1, 6, 4}", "flat = {1, 6, 4}, int64[2] sides = {3, 3}")
        text = text.replace("Add(thin, tokens)", "Concat<axis: int = 1>(thin, thin)")
    else:
        text = TRANSFORMER.replace(old, new)
    one, left = rewrite(text, tmp_path)
    assert one.report.fired > 0
    assert left.count("Conv") == 3
    assert "Softmax" in left or "Split" in left
