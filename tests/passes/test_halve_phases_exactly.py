import numpy as np
import pytest

from passes.halve_phases_exactly import HalvePhasesExactlyPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

PHASES = """
phases (float[batch,1] time) => (float[batch,3] sine, float[batch,3] cosine)
<float[1,3] frequencies = {1, 0.93057203, 0.00010593}>
{
    phase = Mul(time, frequencies)
    sine = Sin(phase)
    cosine = Cos(phase)
}"""


@pytest.mark.parametrize("product", ["Mul(time, frequencies)", "Mul(frequencies, time)"])
def test_frequencies_become_sums_of_what_half_precision_holds(product: str) -> None:
    model = parse(PHASES.replace("Mul(time, frequencies)", product))
    inputs = {"time": np.array([[999], [1]], np.float32)}
    before = run(model, inputs)
    assert apply(HalvePhasesExactlyPass, model).report.fired == 1
    assert operators(model) == ["Mul", "Mul", "Add", "Sin", "Cos"]
    after = run(model, inputs)
    for name, values in before.items():
        assert np.allclose(after[name], values, atol=1e-4)
    for value in model.graph.initializers.values():
        if value.uses():
            assert value.const_value is not None
            part = value.const_value.numpy()
            assert np.array_equal(part, part.astype(np.float16))


@pytest.mark.parametrize(
    "text",
    [
        PHASES.replace("0.93057203, 0.00010593", "0.5, 0.25"),
        PHASES.replace("Sin(phase)", "Exp(phase)").replace("Cos(phase)", "Sqrt(phase)"),
        PHASES.replace("Mul(time", "Add(time"),
    ],
)
def test_what_half_precision_holds_and_what_is_no_phase_is_left_alone(text: str) -> None:
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert apply(HalvePhasesExactlyPass, model).report.fired == 0
    assert_equal(run(model, inputs), before)
