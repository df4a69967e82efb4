import pytest

from passes.scale_one_factor import ScaleOneFactorPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

ATTENTION = """
attention (float[1,8,6,4] q, float[1,8,4,6] k) => (float[1,8,6,6] weights)
<float scale = {0.5946}>
{
    qs = Mul(q, scale)
    ks = Mul(k, scale)
    scores = MatMul(qs, ks)
    weights = Softmax<axis: int = -1>(scores)
}"""


def rewrite(text: str) -> tuple[ScaleOneFactorPass, list[str]]:
    """Run the pass, compare numerics, and see to it that a second run finds nothing to do."""
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    one = apply(ScaleOneFactorPass, model)
    assert_equal(run(model, inputs), before, rtol=1e-6)
    return one, operators(model)


def test_the_query_takes_the_whole_scale() -> None:
    one, left = rewrite(ATTENTION)
    assert one.report.fired == 1
    assert left == ["Mul", "MatMul", "Softmax"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MatMul(qs, ks)", "MatMul(q, ks)"),  # only the key is scaled
        ("Mul(k, scale)", "Mul(scale, k)"),  # the number stands first
        ("float scale", "float[1] scale"),
    ],
)
def test_any_scaled_second_factor_is_unscaled(old: str, new: str) -> None:
    one, left = rewrite(ATTENTION.replace(old, new))
    assert one.report.fired == 1
    assert "MatMul" in left


def test_a_scaling_that_others_read_stays_for_them() -> None:
    text = ATTENTION.replace("weights)\n<", "weights, float[1,8,4,6] ks)\n<")
    one, left = rewrite(text)
    assert one.report.fired == 1
    assert left.count("Mul") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MatMul(qs, ks)", "MatMul(qs, k)"),  # the query's scale is where it belongs
        ("Mul(k, scale)", "Mul(k, k)"),  # no constant
        ("float scale = {0.5946}", "float scale = {0.5946}, float[4,1] each = {1.0,2.0,3.0,4.0}"),
    ],
)
def test_what_is_no_scaled_second_factor_is_left_alone(old: str, new: str) -> None:
    text = ATTENTION.replace(old, new)
    if "each" in new:
        text = text.replace("Mul(k, scale)", "Mul(k, each)")  # a number per channel
    one, _ = rewrite(text)
    assert (one.report.fired, one.report.refusals) == (0, [])


def test_a_scale_among_the_weights_is_not_read() -> None:
    model = parse(ATTENTION.replace("= {0.5946}", "= WEIGHT"))
    assert apply(ScaleOneFactorPass, model).report.fired == 0


def test_a_shape_that_is_not_static_is_refused_with_the_reason() -> None:
    text = ATTENTION.replace("float[1,8,6,4] q", "float[batch,8,6,4] q")
    model = parse(text.replace("float[1,8,6,6] w", "float[batch,8,6,6] w"))
    one = apply(ScaleOneFactorPass, model)
    assert "not static" in one.report.refusals[0].reason
