from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from passes.linked_weights import read_graph
from passes.weights import Place, hidden_weights, weight_places, weights_of
from tests.passes.graphs import names, parse, to_bytes

LAYER = """
layer (float[N,4] x) => (float[N,3] y, float[N,3] z)
<float[4,3] W = WEIGHT, float[3] c = {1, 2, 3}, float16[3] h = WEIGHT, float s = WEIGHT,
 float[0] nothing = WEIGHT>
{
    a = MatMul(x, W)
    b = Add(a, c)
    y = Mul(b, s)
    z = MatMul(x, W)
}"""
PLACES = {
    "W": Place((4, 3), "float32", 0, 48),
    "h": Place((3,), "float16", 48, 6),
    "s": Place((), "float32", 54, 4),
    "nothing": Place((0,), "float32", 58, 0),
}


def as_inputs(model: ir.Model) -> None:
    """Nothing, as a tool that leaves the graph alone."""


def reread(model: ir.Model) -> None:
    """Another graph with other objects, as a tool that takes and gives bytes."""
    model.graph = ir.from_proto(onnx.ModelProto.FromString(to_bytes(model))).graph


def reorder(model: ir.Model) -> None:
    model.graph.inputs[:] = list(model.graph.inputs)[::-1]


def test_a_weight_is_an_initializer_with_a_place_in_a_file() -> None:
    model = parse(LAYER)
    assert weight_places(model) == PLACES
    assert list(weights_of(model)) == ["W", "h", "s", "nothing"]


def test_bfloat16_has_a_name_too() -> None:
    model = parse("g (float[2] x) => (float[2] y) <bfloat16[2] w = WEIGHT> { y = Relu(x) }")
    assert weight_places(model) == {"w": Place((2,), "bfloat16", 0, 4)}


def test_a_graph_is_read_without_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(to_bytes(parse(LAYER)))
    assert weight_places(read_graph(tmp_path / "model.onnx")) == PLACES


def test_hidden_weights_are_inputs_of_their_type_and_shape() -> None:
    model = parse(LAYER)
    with hidden_weights(model) as weights:
        assert list(weights) == list(PLACES)
        assert weight_places(model) == {}
        assert list(model.graph.initializers) == ["c"]
        assert names(model.graph.inputs) == ["x", *PLACES]
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        scalar = model.graph.inputs[3]
        assert (scalar.dtype, scalar.shape) == (ir.DataType.FLOAT, ir.Shape([]))


@pytest.mark.parametrize("tool", [as_inputs, reread, reorder])
def test_hidden_weights_come_back_as_they_were(tool: Callable[[ir.Model], None]) -> None:
    model = parse(LAYER)
    tensors = {name: value.const_value for name, value in weights_of(model).items()}
    with hidden_weights(model):
        tool(model)
    assert weight_places(model) == PLACES
    assert {n: v.const_value for n, v in weights_of(model).items()} == tensors
    assert names(model.graph.inputs) == ["x"]
    assert set(model.graph.initializers) == {*PLACES, "c"}
    assert all(v.is_initializer() and not v.is_graph_input() for v in weights_of(model).values())
    assert [len(weights_of(model)[name].uses()) for name in PLACES] == [2, 0, 1, 0]


def test_hidden_weights_come_back_after_an_error() -> None:
    model = parse(LAYER)
    with pytest.raises(OSError, match="half-way"), hidden_weights(model):
        raise OSError("half-way")
    assert weight_places(model) == PLACES
    assert names(model.graph.inputs) == ["x"]


def test_a_weight_that_the_tool_dropped_does_not_come_back() -> None:
    model = parse(LAYER)
    with hidden_weights(model) as weights:
        model.graph.inputs.remove(weights["h"])
    assert list(weight_places(model)) == ["W", "s", "nothing"]
