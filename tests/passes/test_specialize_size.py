from pathlib import Path

import onnx_ir as ir
import pytest
from onnx_ir.passes import PostconditionError, PreconditionError

from passes.base import PassReport
from passes.specialize_size import SpecializeSizePass
from passes.weights import weight_places
from tests.passes.graphs import (
    assert_equal,
    names,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    to_bytes,
    write_weights,
)

Shapes = dict[str, tuple[int, ...]]

TOKENS = """
tokens (float[batch,4,height,width] x) => (float[batch,tokens,3] y)
<float[4,3] W = WEIGHT, float[3] b = WEIGHT, float[3] unused = WEIGHT,
 int64[2] rest = {-1, 4}>
{
    batch = Shape<start: int = 0, end: int = 1>(x)
    target = Concat<axis: int = 0>(batch, rest)
    last = Transpose<perm: ints = [0, 2, 3, 1]>(x)
    flat = Reshape(last, target)
    product = MatMul(flat, W)
    twice = Add(product, b)
    y = Add(twice, b)
}"""


def specialise(model: ir.Model, shapes: Shapes) -> PassReport:
    """Run the pass, and see to it that a second run finds nothing to do."""
    one = SpecializeSizePass(shapes)
    one(model)
    after = to_bytes(model)
    again = SpecializeSizePass(shapes)
    assert not again(model).modified
    assert again.report == PassReport("specialize-size")
    assert to_bytes(model) == after
    return one.report


def assert_static(model: ir.Model) -> None:
    assert "Shape" not in operators(model)
    for node in model.graph:
        for value in node.outputs:
            assert not value.name or (value.shape is not None and value.shape.is_static()), value


def test_shape_arithmetic_becomes_constant_and_nothing_else_changes(tmp_path: Path) -> None:
    model = parse(TOKENS)
    places = weight_places(model)
    write_weights(model, tmp_path, random_weights(model))
    inputs = random_inputs(model)
    before = run(model, inputs, tmp_path)
    assert specialise(model, {"x": (2, 4, 2, 2)}).fired == 1
    assert operators(model) == ["Transpose", "Reshape", "MatMul", "Add", "Add"]
    assert_static(model)
    assert weight_places(model) == places
    assert_equal(run(model, inputs, tmp_path), before)


def test_two_sizes_give_the_same_operators_with_other_constants() -> None:
    small, large = parse(TOKENS), parse(TOKENS)
    specialise(small, {"x": (1, 4, 8, 8)})
    specialise(large, {"x": (3, 4, 16, 24)})
    assert operators(small) == operators(large)
    assert small.graph.outputs[0].shape == ir.Shape([1, 64, 3])
    assert large.graph.outputs[0].shape == ir.Shape([3, 384, 3])


def test_a_linear_layer_stays_a_product_and_a_sum() -> None:
    model = parse(
        """g (float[N,4] x) => (float[N,3] y) <float[4,3] W = WEIGHT, float[3] b = WEIGHT>
        { a = MatMul(x, W) y = Add(a, b) }"""
    )
    specialise(model, {"x": (2, 4)})
    assert operators(model) == ["MatMul", "Add"]


def test_scalars_inside_the_graph_have_a_shape_too() -> None:
    model = parse(
        """g (float[N,3] x) => (float[N,3] y, float s)
        { s = ReduceSum<keepdims: int = 0>(x) y = Mul(x, s) }"""
    )
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert specialise(model, {"x": (2, 3)}).fired == 1
    assert_equal(run(model, inputs), before)


def test_an_omitted_optional_output_needs_no_shape() -> None:
    model = parse(
        """g (float[N,3] x) => (float[N,3] y, float[N,1] d) <float[3] s = WEIGHT>
        { y, , d = LayerNormalization(x, s) }"""
    )
    assert specialise(model, {"x": (2, 3)}).fired == 1
    assert_static(model)


def test_an_output_of_unknown_rank_gets_its_shape() -> None:
    model = parse("g (float[N,3] x) => (float[] y) { y = Relu(x) }")
    model.graph.outputs[0].shape = None
    specialise(model, {"x": (2, 3)})
    assert model.graph.outputs[0].shape == ir.Shape([2, 3])


def test_shapes_of_another_size_inside_the_graph_are_forgotten() -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { a = Relu(x) y = Neg(a) }")
    model.graph[0].outputs[0].shape = ir.Shape([7, 3])
    specialise(model, {"x": (2, 3)})
    assert model.graph[0].outputs[0].shape == ir.Shape([2, 3])


def test_functions_are_inlined() -> None:
    model = parse(
        """g (float[N,3] x) => (float[N,3] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["": 18]>
        twice (a) => (b) { s = Shape(a) c = Reshape(a, s) b = Add(c, c) }""",
        header='<ir_version: 10, opset_import: ["" : 18, "local" : 1]>',
    )
    inputs = random_inputs(model)
    before = run(model, inputs)
    specialise(model, {"x": (2, 3)})
    assert operators(model)[-1] == "Add"
    assert not model.functions
    assert dict(model.opset_imports) == {"": 18}
    assert_equal(run(model, inputs), before)


def test_values_may_be_read_inside_a_subgraph() -> None:
    model = parse(
        """g (float[N,3] x, bool c) => (float[N,3] y) <float[3] b = WEIGHT>
        { y = If(c) <then_branch = yes () => (float[N,3] u) { u = Add(x, b) },
                     else_branch = no () => (float[N,3] v) { v = Neg(x) }> }"""
    )
    places = weight_places(model)
    assert specialise(model, {"x": (2, 3), "c": ()}).fired == 1
    assert weight_places(model) == places


@pytest.mark.parametrize(
    "shapes", [{}, {"z": (1, 4, 8, 8)}, {"x": (4, 8, 8)}, {"x": (1, 4, 8, 8), "z": (1,)}]
)
def test_it_refuses_shapes_that_are_not_the_inputs(shapes: Shapes) -> None:
    model = parse(TOKENS)
    before = to_bytes(model)
    with pytest.raises(PreconditionError, match=r"the inputs' ranks are \{'x': 4\}"):
        SpecializeSizePass(shapes)(model)
    assert to_bytes(model) == before


def test_it_refuses_a_graph_whose_shapes_depend_on_values() -> None:
    model = parse("g (float[N] x) => (int64[2] y) { a = NonZero(x) s = Shape(a) y = Neg(s) }")
    with pytest.raises(PostconditionError, match=r"1 Shape operators left .* \['a'"):
        SpecializeSizePass({"x": (5,)})(model)


def test_a_size_that_does_not_fit_leaves_the_weights_where_they_were() -> None:
    model = parse(
        """g (float[N,M] x) => (float[N,3] y) <float[4,3] W = WEIGHT> { y = MatMul(x, W) }"""
    )
    places = weight_places(model)
    with pytest.raises(Exception, match="dimension"):
        SpecializeSizePass({"x": (2, 5)})(model)
    assert weight_places(model) == places
    assert names(model.graph.inputs) == ["x"]
