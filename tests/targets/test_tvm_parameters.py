"""What TVM's programs take: weights, and what the graph makes of them alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.progress import silent
from converter.weights import Array
from targets.tvm.binding import DATA_FILE, read_index, write_parameters
from targets.tvm.parameters import take_parameters
from targets.tvm.program import operations_of
from tests.passes.graphs import parse, random_inputs, random_weights, run, write_weights
from tests.targets.sophgo_jobs import Weights

NETWORK = """
network (float[1,6,4] tokens, float[1,2,4,4] picture) => (float[6,3] y, float[1,5,2,2] z)
<float[4,6] W = WEIGHT, float[5,2,3,3] K = WEIGHT, float[3] b = WEIGHT,
 int64[1] one = {1}, int64[1] four = {4}, float scale = {0.5}, int64[2] flat = {6, 4}>
{
    part = Slice(W, one, four, one)
    turned = Transpose<perm: ints = [1, 0]>(part)
    scaled = Mul(turned, scale)
    matrix = Reshape(tokens, flat)
    product = Gemm<transB: int = 1>(matrix, scaled)
    y = Add(product, b)
    z = Conv(picture, K)
}"""


def test_forms_of_weights_become_parameters(tmp_path: Path) -> None:
    model = parse(NETWORK)
    values = random_weights(model)
    write_weights(model, tmp_path, values)
    inputs = random_inputs(model)
    expected = run(model, inputs, tmp_path)
    assert operations_of(model) == 2 * 6 * 3 * 4 + 2 * 5 * 2 * 2 * 2 * 3 * 3
    parameters = take_parameters(model)
    assert [p.name for p in parameters] == [
        "K",
        "b",
        "W | slice 1,1,4 | transpose 1,0 | scale 0.5",
    ]
    assert [node.op_type for node in model.graph] == ["Reshape", "Gemm", "Add", "Conv"]
    assert len(model.graph.initializers) == 1  # the shape of the matrix
    made = {f"p{i}": p.made_from(values[p.source]) for i, p in enumerate(parameters)}
    found = run(model, {**inputs, **made})
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)


def test_a_weight_in_half_precision_is_cast_when_it_is_written() -> None:
    model = parse(NETWORK)
    bias = model.graph.initializers["b"]
    (add,) = (use.node for use in bias.uses())
    cast = ir.Value(name="half", shape=bias.shape, type=ir.TensorType(ir.DataType.FLOAT16))
    half = ir.AttrInt64("to", ir.DataType.FLOAT16)
    model.graph.insert_before(add, ir.Node("", "Cast", [bias], [half], outputs=[cast]))
    add.replace_input_with(1, cast)
    (parameter,) = (p for p in take_parameters(model) if p.source == "b")
    assert (parameter.name, parameter.dtype) == ("b | cast float16", "float16")
    assert parameter.made_from(np.ones(3, np.float32)).dtype == np.float16


def bound(folder: Path, values: Mapping[str, Array], key: str) -> bool:
    model = parse(NETWORK)
    parameters = {p.name: p for p in take_parameters(model)}
    weights = Weights(dict(values), key)
    return write_parameters(parameters, weights, folder, silent, "bind")


def test_the_file_is_in_tvms_own_format_and_written_once(tmp_path: Path) -> None:
    values = random_weights(parse(NETWORK))
    assert bound(tmp_path, values, "first")
    assert not bound(tmp_path, values, "first")
    data = (tmp_path / DATA_FILE).read_bytes()
    records = read_index(tmp_path)
    assert all(record["byteOffset"] % 64 == 0 for record in records.values())
    kernel = records["K"]
    found = np.frombuffer(data, "float32", 90, kernel["byteOffset"]).reshape(kernel["shape"])
    np.testing.assert_array_equal(found, values["K"])
    assert bound(tmp_path, {**values, "K": values["K"] + 1}, "second")
    data = (tmp_path / DATA_FILE).read_bytes()
    found = np.frombuffer(data, "float32", 90, kernel["byteOffset"]).reshape(kernel["shape"])
    np.testing.assert_array_equal(found, values["K"] + 1)
