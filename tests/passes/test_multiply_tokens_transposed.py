from pathlib import Path

import pytest

from passes.multiply_tokens_transposed import MultiplyTokensTransposedPass
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

TOKENS = """
tokens (float[1,6,4] tokens) => (float[1,5,2,3] y)
<float[5,4,1,1] W = WEIGHT, float[5] b = WEIGHT, int64[4] apart = {1, 2, 3, 4}>
{
    picture = Reshape(tokens, apart)
    turned = Transpose<perm: ints = [0, 3, 1, 2]>(picture)
    y = Conv<strides: ints = [1, 1], pads: ints = [0, 0, 0, 0]>(turned, W, b)
}"""


def test_convolved_tokens_become_a_matrix_product(tmp_path: Path) -> None:
    model = parse(TOKENS)
    inputs = random_inputs(model)
    write_weights(model, tmp_path, random_weights(model))
    before = run(model, inputs, tmp_path)
    assert apply(MultiplyTokensTransposedPass, model).report.fired == 1
    assert sorted(operators(model)) == sorted(
        ["Transpose", "Reshape", "MatMul", "Reshape", "Unsqueeze", "Add"]
    )
    assert_equal(run(model, inputs, tmp_path), before, rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("perm: ints = [0, 3, 1, 2]", "perm: ints = [0, 3, 2, 1]"),
        ("[5,4,1,1]", "[5,4,2,2]"),
        ("strides: ints = [1, 1]", "strides: ints = [2, 2]"),
        ("pads: ints = [0, 0, 0, 0]", "pads: ints = [1, 1, 1, 1]"),
        ("(turned, W, b)", "(turned, W)"),
        ("tokens) =>", "other, float[1,2,3,4] tokens) =>"),  # a picture already
    ],
)
def test_other_convolutions_are_left_alone(old: str, new: str) -> None:
    text = TOKENS.replace(old, new)
    one = apply(MultiplyTokensTransposedPass, parse(text))
    assert (one.report.fired, one.report.refusals) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("y)\n<", "y, float[1,4,2,3] turned)\n<", "also used otherwise"),
        ("y)\n<", "y, float[1,2,3,4] picture)\n<", "also used otherwise"),
    ],
)
def test_a_picture_that_is_used_otherwise_is_refused(old: str, new: str, reason: str) -> None:
    one = apply(MultiplyTokensTransposedPass, parse(TOKENS.replace(old, new)))
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason


def test_a_larger_batch_is_refused() -> None:
    text = TOKENS.replace("float[1,", "float[2,").replace("{1, 2, 3, 4}", "{2, 2, 3, 4}")
    one = apply(MultiplyTokensTransposedPass, parse(text))
    assert "a batch of 2" in one.report.refusals[0].reason


def test_a_shape_that_is_not_static_is_refused() -> None:
    text = TOKENS.replace("[1,6,4] tokens", "[1,n,4] tokens").replace("{1, 2, 3", "{1, -1, 3")
    one = apply(MultiplyTokensTransposedPass, parse(text.replace("[1,5,2,3] y", "[1,5,h,3] y")))
    assert "not static" in one.report.refusals[0].reason
