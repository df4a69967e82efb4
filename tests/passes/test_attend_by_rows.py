import pytest

from passes.attend_by_rows import AttendByRowsPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

ATTENTION = """
attention (float[1,2,6,4] q, float[1,2,4,5] k, float[1,2,5,3] v) => (float[1,2,6,3] y)
{
    scores = MatMul(q, k)
    shares = Softmax<axis: int = -1>(scores)
    y = MatMul(shares, v)
}"""
SCORES = 4 * 2 * 6 * 5
"""Bytes."""


@pytest.mark.parametrize(("least", "pieces"), [(1, 1), (2, 2), (3, 3), (4, 6), (100, 6)])
def test_scores_are_computed_in_equal_pieces_that_fit(least: int, pieces: int) -> None:
    model = parse(ATTENTION)
    inputs = random_inputs(model)
    wanted = run(model, inputs)
    one = apply(lambda: AttendByRowsPass(-(-SCORES // least)), model)
    assert one.report.fired == (pieces > 1)
    assert operators(model).count("Softmax") == pieces
    assert_equal(run(model, inputs), wanted, rtol=1e-6)  # products of other sizes sum otherwise


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("scores = MatMul(q, k)", "p = MatMul(q, k)\nscores = Neg(p)", "its scores are no product"),
        ("Softmax<axis: int = -1>(scores)", "Softmax<axis: int = -1>(scores)\nz = Neg(shares)",
         "its shares are used otherwise than by one product"),
    ],
)  # fmt: skip
def test_what_is_no_plain_attention_is_left(old: str, new: str, reason: str) -> None:
    one = apply(lambda: AttendByRowsPass(1), parse(ATTENTION.replace(old, new)))
    assert [refusal.reason for refusal in one.report.refusals] == [reason]
