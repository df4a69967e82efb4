import pytest

from passes.halve_gelu_last import HalveGeluLastPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

GELU = """
gelu (float[2,3] x) => (float[2,3] y)
<float root = {1.4142135}, float one = {1}, float half = {0.5}>
{
    scaled = Div(x, root)
    error = Erf(scaled)
    above = Add(error, one)
    share = Mul(half, above)
    y = Mul(x, share)
}"""


@pytest.mark.parametrize(
    ("old", "new"),
    [("", ""), ("Mul(half, above)", "Mul(above, half)"), ("Mul(x, share)", "Mul(share, x)")],
)
def test_one_half_comes_last_as_the_compiler_knows_it(old: str, new: str) -> None:
    model = parse(GELU.replace(old, new) if old else GELU)
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert apply(HalveGeluLastPass, model).report.fired == 1
    assert operators(model) == ["Div", "Erf", "Add", "Mul", "Mul"]
    inner, outer = [node for node in model.graph if node.op_type == "Mul"]
    assert [v.name for v in inner.inputs if v] == ["x", "above"]
    assert [v.name for v in outer.inputs if v] == ["share", "half"]
    assert_equal(run(model, inputs), before, rtol=1e-6)
    assert apply(HalveGeluLastPass, model).report.fired == 0


@pytest.mark.parametrize(
    "text",
    [
        GELU.replace("Div(x, root)", "Mul(x, root)"),
        GELU.replace("y)\n", "y, float[2,3] above)\n"),
        GELU.replace("Mul(x, share)", "Mul(scaled, share)"),
        GELU.replace("Add(error, one)", "Mul(error, one)"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    one = apply(HalveGeluLastPass, parse(text))
    assert one.report.fired == 0
    assert "no part of a GELU" in one.report.refusals[0].reason
