from pathlib import Path

import numpy as np
import onnx_ir as ir

from passes.halve_precision import HalvePrecisionPass
from tests.passes.graphs import (
    apply,
    parse,
    random_inputs,
    random_weights,
    run,
    write_weights,
)

NETWORK = """
network (float[1,2,4,4] x, float[1] t) => (float[1,2,4,4] y)
<float[2,2,1,1] W = WEIGHT, float[2,2] V = WEIGHT, float[2] ones = {1.0, 1.0},
 float[2] zeros = {0.0, 0.0}, float frequency = {37.0}, int64[4] wide = {2, 2, 1, 1},
 float nothing = {-3.0e38}>
{
    angle = Mul(t, frequency)
    wave = Sin(angle)
    shifted = Add(x, wave)
    convolved = Conv(shifted, W)
    normed = InstanceNormalization(convolved, ones, zeros)
    scaled = Mul(V, frequency)
    kernel = Reshape(scaled, wide)
    again = Conv(normed, kernel)
    low = Max(again, nothing)
    y = Add(low, x)
}"""


def halved(folder: Path) -> tuple[ir.Model, HalvePrecisionPass, float]:
    """Run the pass twice; also how far the result is from that in float32, relative to its peak."""
    model = parse(NETWORK)
    write_weights(model, folder, random_weights(model))
    inputs = {**random_inputs(model), "t": np.array([900], np.float32)}
    (before,) = run(model, inputs, folder).values()
    one = apply(HalvePrecisionPass, model)
    (after,) = run(model, inputs, folder).values()
    assert after.dtype == np.float32
    return model, one, float(np.abs(after - before).max() / np.abs(before).max())


def dtypes(model: ir.Model) -> dict[str, set[str]]:
    """The dtypes of every operator's results."""
    found: dict[str, set[str]] = {}
    for node in model.graph:
        assert node.outputs[0].dtype is not None
        found.setdefault(node.op_type, set()).add(node.outputs[0].dtype.name)
    return found


def test_what_half_precision_can_hold_is_in_it(tmp_path: Path) -> None:
    model, one, error = halved(tmp_path)
    found = dtypes(model)
    assert found["Conv"] == {"FLOAT16"}
    assert found["InstanceNormalization"] == found["Sin"] == {"FLOAT"}
    assert one.report.fired == 5
    # 11 bits of mantissa, and a sum of few numbers
    assert error < 2e-3


def test_an_angle_is_multiplied_in_full_precision(tmp_path: Path) -> None:
    # the angle 33300 is beyond what float16 tells apart by less than 16
    model, _, error = halved(tmp_path)
    wave = next(node for node in model.graph if node.op_type == "Sin")
    angle = wave.inputs[0]
    assert angle is not None and angle.dtype == ir.DataType.FLOAT
    assert error < 2e-3


def test_a_weight_is_cast_once_where_all_else_is_done(tmp_path: Path) -> None:
    model, _, _ = halved(tmp_path)
    (reshape,) = (node for node in model.graph if node.op_type == "Reshape")
    assert [use.node.op_type for use in reshape.outputs[0].uses()] == ["Cast"]
