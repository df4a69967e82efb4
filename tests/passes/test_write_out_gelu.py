import math

import numpy as np
import pytest

from passes.write_out_gelu import LOGARITHM, WriteOutGeluPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

GELU = """
gelu (float[2,3] x) => (float[2,3] y)
<float root = {1.4142135}, float one = {1.0}, float half = {0.5}>
{
    scaled = Div(x, root)
    error = Erf(scaled)
    raised = Add(error, one)
    halved = Mul(half, raised)
    y = Mul(x, halved)
}"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("Add(error, one)", "Add(one, error)"),
        ("Mul(half, raised)", "Mul(raised, half)"),
        ("Mul(x, halved)", "Mul(halved, x)"),
    ],
)
def test_a_gelu_is_written_out(old: str, new: str) -> None:
    model = parse(GELU.replace(old, new))
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert apply(WriteOutGeluPass, model).report.fired == 1
    assert set(operators(model)) == {"Abs", "Add", "Exp", "Mul"}
    assert_equal(run(model, inputs), before, rtol=2e-6)


def test_it_is_a_gelu_everywhere() -> None:
    model = parse(GELU.replace("[2,3]", "[1,40001]"))
    x = np.linspace(-20, 20, 40001, dtype=np.float32)[None]
    before = run(model, {"x": x})["y"]
    apply(WriteOutGeluPass, model)
    assert np.abs(run(model, {"x": x})["y"] - before).max() < 2e-6


def test_far_from_zero_it_is_what_a_gelu_is() -> None:
    model = parse(GELU)
    inputs = {"x": np.array([[-60000, -90, -7], [7, 90, 60000]], np.float32)}
    apply(WriteOutGeluPass, model)
    expected = np.maximum(inputs["x"], 0)
    np.testing.assert_allclose(run(model, inputs)["y"], expected, rtol=1e-6, atol=1e-9)


def test_the_polynomial_is_as_near_as_its_text_says_and_grows_beyond() -> None:
    u = np.linspace(0, 60, 60001)
    share = np.array([math.erfc(x / math.sqrt(2)) / 2 for x in u])
    logarithm = sum(c * (-u) ** power for power, c in enumerate(LOGARITHM))
    assert np.abs(u * (np.exp(logarithm) - share)).max() < 1.5e-6
    assert (np.diff(logarithm) < 0).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("root = {1.4142135}", "root = {2.0}"),
        ("one = {1.0}", "one = {2.0}"),
        ("half = {0.5}", "half = {0.25}"),
        ("Mul(x, halved)", "Mul(scaled, halved)"),
        ("Mul(x, halved)", "Add(x, halved)"),
        ("Div(x, root)", "Mul(x, root)"),
    ],
)
def test_other_uses_of_an_error_function_are_left_alone(old: str, new: str) -> None:
    one = apply(WriteOutGeluPass, parse(GELU.replace(old, new)))
    assert (one.report.fired, one.report.refusals) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[2,3]", "[batch,3]", "not static"),
        ("y)\n", "y, float[2,3] raised)\n", "also used otherwise"),
    ],
)
def test_an_obstacle_is_refused_with_the_reason(old: str, new: str, reason: str) -> None:
    one = apply(WriteOutGeluPass, parse(GELU.replace(old, new)))
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason
