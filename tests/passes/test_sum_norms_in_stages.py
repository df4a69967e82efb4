import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import PreconditionError

from passes.sum_norms_in_stages import LONG, SumNormsInStagesPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

NORM = """
norm (float[1,2,N] x) => (float[1,2,N] y)
<float[2] ones = {1, 1}, float[2] zeros = {0, 0}>
{
    y = InstanceNormalization<epsilon: float = 0.001>(x, ones, zeros)
}"""


def graph(numbers: int = LONG, text: str = NORM) -> ir.Model:
    return parse(text.replace("N]", f"{numbers}]"))


def rewritten(model: ir.Model) -> SumNormsInStagesPass:
    return apply(SumNormsInStagesPass, model)


def test_a_long_norm_is_written_out_and_computes_the_same() -> None:
    model = graph()
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert rewritten(model).report.fired == 1
    assert "InstanceNormalization" not in operators(model)
    assert operators(model).count("ReduceMean") == 4
    # The two differ by what the old form loses; the next test says which of them is right.
    assert_equal(run(model, inputs), before, rtol=1e-3)


def test_a_million_numbers_keep_their_digits() -> None:
    model = graph(2**20)
    rng = np.random.default_rng(0)
    x = (3 + rng.standard_normal((1, 2, 2**20))).astype(np.float32)
    exact = x.astype(np.float64)
    deviation = np.sqrt(exact.var(-1, keepdims=True) + 1e-3)
    exact = (exact - exact.mean(-1, keepdims=True)) / deviation
    old = np.abs(run(model, {"x": x})["y"] - exact).max()
    rewritten(model)
    new = np.abs(run(model, {"x": x})["y"] - exact).max()
    assert new < 5e-6
    assert old > 10 * new


def test_short_norms_are_left_alone() -> None:
    one = rewritten(graph(LONG - 1024))
    assert (one.report.fired, one.report.refusals) == (0, [])


@pytest.mark.parametrize(
    ("numbers", "text", "reason"),
    [
        (LONG + 1, NORM, "cannot be cut evenly"),
        (LONG, NORM.replace("{1, 1}", "{1, 2}"), "scales or shifts"),
        (LONG, NORM.replace("{0, 0}", "{0, 1}"), "scales or shifts"),
        (LONG, NORM.replace("1,2,N]", "1,2,8,N]"), "4 axes"),
    ],
)
def test_what_is_no_plain_group_norm_is_refused_with_the_reason(
    numbers: int, text: str, reason: str
) -> None:
    one = rewritten(graph(numbers, text))
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason


def test_an_older_opset_is_refused() -> None:
    model = graph()
    model.opset_imports[""] = 17
    with pytest.raises(PreconditionError, match="opset 18"):
        SumNormsInStagesPass()(model)
