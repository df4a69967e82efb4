import numpy as np
import pytest

from passes.write_out_silu import WriteOutSiluPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

SILU = """
silu (float[2,3] x) => (float[2,3] y)
{
    share = Sigmoid(x)
    y = Mul(x, share)
}"""


@pytest.mark.parametrize("text", [SILU, SILU.replace("Mul(x, share)", "Mul(share, x)")])
def test_a_silu_is_written_out(text: str) -> None:
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert apply(WriteOutSiluPass, model).report.fired == 1
    assert operators(model) == ["Mul", "Exp", "Add", "Reciprocal", "Mul"]
    assert_equal(run(model, inputs), before, rtol=1e-6)


def test_far_from_zero_it_is_what_a_silu_is() -> None:
    model = parse(SILU)
    inputs = {"x": np.array([[-1000, -90, -20], [20, 90, 1000]], np.float32)}
    before = run(model, inputs)
    apply(WriteOutSiluPass, model)
    assert_equal(run(model, inputs), before, rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        SILU.replace("Mul(x, share)", "Mul(share, share)"),
        SILU.replace("y)\n", "y, float[2,3] share)\n"),
        SILU.replace("Mul(x, share)", "Add(x, share)"),
    ],
)
def test_other_uses_of_a_sigmoid_are_left_alone(text: str) -> None:
    one = apply(WriteOutSiluPass, parse(text))
    assert (one.report.fired, one.report.refusals) == (0, [])


def test_a_shape_that_is_not_static_is_refused_with_the_reason() -> None:
    one = apply(WriteOutSiluPass, parse(SILU.replace("[2,3]", "[batch,3]")))
    assert "not static" in one.report.refusals[0].reason
