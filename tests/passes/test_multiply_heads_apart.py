from pathlib import Path

import pytest

from passes.multiply_heads_apart import MultiplyHeadsApartPass
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

ATTENTION = """
attention (float[1,6,8] tokens, float[1,5,4] text) => (float[1,6,8] y)
<float[8,8] Q = WEIGHT, float[4,8] K = WEIGHT, float[4,8] V = WEIGHT, float[8] b = WEIGHT,
 float scale = {0.7}, int64[4] asking = {1, 6, 2, 4}, int64[4] asked = {1, 5, 2, 4},
 int64[3] whole = {1, 6, 8}>
{
    q = MatMul(tokens, Q)
    qh = Reshape(q, asking)
    qt = Transpose<perm: ints = [0, 2, 1, 3]>(qh)
    qs = Mul(qt, scale)
    k = MatMul(text, K)
    kh = Reshape(k, asked)
    kt = Transpose<perm: ints = [0, 2, 3, 1]>(kh)
    ks = Mul(kt, scale)
    scores = MatMul(qs, ks)
    shares = Softmax<axis: int = -1>(scores)
    v = MatMul(text, V)
    vb = Add(v, b)
    vh = Reshape(vb, asked)
    vt = Transpose<perm: ints = [0, 2, 1, 3]>(vh)
    mixed = MatMul(shares, vt)
    back = Transpose<perm: ints = [0, 2, 1, 3]>(mixed)
    y = Reshape(back, whole)
}"""


def rewrite(text: str, folder: Path) -> tuple[MultiplyHeadsApartPass, list[str]]:
    """Run the pass, compare numerics, and see to it that a second run finds nothing to do."""
    model = parse(text)
    write_weights(model, folder, random_weights(model))
    inputs = random_inputs(model)
    before = run(model, inputs, folder)
    one = apply(MultiplyHeadsApartPass, model)
    # the scale is multiplied into the weight, so products round elsewhere
    assert_equal(run(model, inputs, folder), before, rtol=1e-6)
    return one, operators(model)


def test_every_head_is_products_of_matrices(tmp_path: Path) -> None:
    one, left = rewrite(ATTENTION, tmp_path)
    assert one.report.fired == 1
    assert one.report.refusals == []
    assert "MatMul" not in left
    # queries, keys, scores and result of two heads; values are convolutions
    assert (left.count("Gemm"), left.count("Conv"), left.count("Softmax")) == (8, 2, 2)


def test_a_mask_for_all_heads_is_added_to_each(tmp_path: Path) -> None:
    text = ATTENTION.replace("Softmax<axis: int = -1>(scores)", "Softmax<axis: int = -1>(masked)")
    text = text.replace("    shares =", "    masked = Add(scores, mask)\n    shares =")
    numbers = ", ".join(str(n % 3 - 1) + ".0" for n in range(30))
    text = text.replace("float scale =", f"float[1,1,6,5] mask = {{{numbers}}}, float scale =")
    one, left = rewrite(text, tmp_path)
    assert one.report.fired == 1
    assert left.count("Gemm") == 8


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("MatMul(tokens, Q)", "Mul(tokens, tokens)", "its query is no projection of tokens"),
        ("MatMul(text, K)", "Concat<axis: int = 2>(text, text)", "its key is no projection"),
        ("y = Reshape(back, whole)", "y = Sum(tokens)", "its heads are not joined"),
        ("MatMul(qs, ks)", "Mod<fmod: int = 1>(p, p)", "its scores are no product"),
    ],
)
def test_anything_else_is_left_with_a_reason(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    text = ATTENTION.replace(old, new)
    text = text.replace("    scores = Mod", "    p = MatMul(qs, ks)\n    scores = Mod")
    one, _ = rewrite(text, tmp_path)
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason


def test_more_than_one_picture_is_refused(tmp_path: Path) -> None:
    text = ATTENTION.replace("[1,", "[2,").replace("{1, ", "{2, ")
    one, _ = rewrite(text, tmp_path)
    assert [r.reason for r in one.report.refusals] == ["a batch of 2 needs a product each"]
