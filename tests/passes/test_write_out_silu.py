import numpy as np
import pytest

from passes.write_out_silu import RECIPROCAL, WriteOutSiluPass
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
    # Neither a division nor what ends tpu-mlir's groups.
    assert set(operators(model)) == {"Abs", "Add", "Exp", "Mul"}
    assert_equal(run(model, inputs), before, rtol=1e-6)


def test_it_is_a_silu_everywhere() -> None:
    model = parse(SILU.replace("[2,3]", "[1,40001]"))
    x = np.linspace(-20, 20, 40001, dtype=np.float32)[None]
    before = run(model, {"x": x})["y"]
    apply(WriteOutSiluPass, model)
    assert np.abs(run(model, {"x": x})["y"] - before).max() < 2.5e-6


def test_far_from_zero_it_is_what_a_silu_is() -> None:
    model = parse(SILU)
    inputs = {"x": np.array([[-60000, -90, -20], [20, 90, 60000]], np.float32)}
    before = run(model, inputs)
    apply(WriteOutSiluPass, model)
    np.testing.assert_allclose(run(model, inputs)["y"], before["y"], rtol=1e-5, atol=1e-7)


def test_the_polynomial_is_as_near_as_its_text_says() -> None:
    v = np.linspace(0, 1, 10001)
    share = sum(c * (v - 0.5) ** power for power, c in enumerate(RECIPROCAL))
    assert np.abs(share * (1 + v) - 1).max() < 9e-6


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
