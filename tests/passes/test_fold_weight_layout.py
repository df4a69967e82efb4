from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.weights import Array
from passes.base import Refusal
from passes.fold_weight_layout import FoldWeightLayoutPass
from passes.weights import weight_places
from tests.passes.graphs import (
    assert_equal,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    to_bytes,
    write_weights,
)

LAYERS = """
layers (float[2,4,5,5] x, float[2,6] t) => (float[2,4,5,5] y, float[2,4] z)
<float[4] gamma = WEIGHT, float[4,6] W = WEIGHT, int64[2] axes = {1, 2}>
{
    scale = Unsqueeze(gamma, axes)
    y = Mul(x, scale)
    turned = Transpose<perm: ints = [1, 0]>(W)
    z = MatMul(t, turned)
}"""


def fold(model: ir.Model) -> FoldWeightLayoutPass:
    """Run the pass, and see to it that a second run finds nothing to do."""
    one = FoldWeightLayoutPass()
    one(model)
    after = to_bytes(model)
    again = FoldWeightLayoutPass()
    assert not again(model).modified
    assert again.report.refusals == one.report.refusals
    assert to_bytes(model) == after
    return one


def refusals(text: str) -> list[str]:
    """Run the pass on a graph that it must leave byte for byte; return why it did."""
    model = parse(text)
    before = to_bytes(model)
    one = fold(model)
    assert one.report.fired == 0
    assert to_bytes(model) == before
    return [refusal.reason for refusal in one.report.refusals]


def laid_out(model: ir.Model, values: dict[str, Array]) -> dict[str, Array]:
    """The same weights as the folded graph names them: ``W.T`` is W transposed."""
    return values | {f"{name}.T": np.ascontiguousarray(v.T) for name, v in values.items()}


def folded(text: str, fired: int, left: list[str], folder: Path) -> ir.Model:
    """Fold a graph; it fires so often, those operators are left, and the outputs are the same."""
    model = parse(text)
    inputs, values = random_inputs(model), random_weights(model)
    write_weights(model, folder, values)
    before = run(model, inputs, folder)
    offsets = [place.offset for place in weight_places(model).values()]
    one = fold(model)
    assert (one.report.fired, one.report.refusals) == (fired, [])
    assert operators(model) == left
    assert sorted(place.offset for place in weight_places(model).values()) == offsets
    write_weights(model, folder, laid_out(model, values))
    assert_equal(run(model, inputs, folder), before, rtol=1e-6)  # MatMul may sum in another order
    return model


def test_linear_layers_and_norm_scales_take_their_weight_as_it_is_used(tmp_path: Path) -> None:
    model = folded(LAYERS, fired=2, left=["Mul", "MatMul"], folder=tmp_path)
    shapes = {name: place.shape for name, place in weight_places(model).items()}
    assert shapes == {"gamma": (4, 1, 1), "W.T": (6, 4)}


def test_a_weight_used_twice_in_one_form_is_stored_once(tmp_path: Path) -> None:
    model = folded(
        """g (float[2,6] x, float[3,6] z) => (float[2,4] y, float[3,4] w) <float[4,6] W = WEIGHT>
        { a = Transpose(W) y = MatMul(x, a) b = Transpose<perm: ints = [1, 0]>(W)
          w = MatMul(z, b) }""",
        fired=2,
        left=["MatMul", "MatMul"],
        folder=tmp_path,
    )
    assert list(weight_places(model)) == ["W.T"]


def test_negative_axes_count_from_the_end_of_the_new_shape(tmp_path: Path) -> None:
    model = folded(
        """g (float[2,4,1,3] x) => (float[2,4,1,3] y)
        <float[4,3] g0 = WEIGHT, int64[2] axes = {-2, 0}>
        { a = Unsqueeze(g0, axes) y = Mul(x, a) }""",
        fired=1,
        left=["Mul"],
        folder=tmp_path,
    )
    assert weight_places(model)["g0"].shape == (1, 4, 1, 3)


def test_an_unsqueezed_weight_may_be_unsqueezed_again(tmp_path: Path) -> None:
    model = folded(
        """g (float[2,4] x) => (float[1,2,4] y) <float[4] g0 = WEIGHT, int64[1] axes = {0}>
        { a = Unsqueeze(g0, axes) b = Unsqueeze(a, axes) y = Mul(x, b) }""",
        fired=2,
        left=["Mul"],
        folder=tmp_path,
    )
    assert weight_places(model)["g0"].shape == (1, 1, 4)


def test_a_subgraph_may_hold_the_operator(tmp_path: Path) -> None:
    model = folded(
        """g (float[2,6] x, bool c) => (float[2,4] y) <float[4,6] W = WEIGHT>
        { y = If(c) <
            then_branch = yes () => (float[2,4] u) { a = Transpose(W) u = MatMul(x, a) },
            else_branch = no () => (float[2,4] v) { b = Transpose(W) v = MatMul(x, b) }> }""",
        fired=2,
        left=["If"],
        folder=tmp_path,
    )
    assert [node.op_type for node in model.graph.all_nodes()] == ["If", "MatMul", "MatMul"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("a = Transpose(W) b = MatMul(x, a) y = MatMul(b, W)", "W is also used in another form"),
        ("a = Transpose(W) b = MatMul(x, a) c = Transpose<perm: ints = [0, 1]>(W) y = MatMul(b, c)",
         "W is also used in another form"),
        ("a = Transpose<perm: ints = [0, 1]>(W) y = MatMul(x, a)",
         "W keeps its axes where they are"),
        ("a = Unsqueeze(W, zero) b = Unsqueeze(W, one) c = Mul(a, b) y = MatMul(x, c)",
         "W is also used in another form"),
        ("a = Transpose(V) y = MatMul(x, a)", "V of shape [3, 3, 3] is no matrix"),
        ("a = Unsqueeze(W, axes) y = MatMul(x, a)", "the axes are not constant"),
        ("a = Unsqueeze(W, far) y = MatMul(x, a)", "the axes are not constant"),
        ("y = Transpose(W)", "W in that form is an output of the graph"),
    ],
)  # fmt: skip
def test_it_refuses_with_its_reason(nodes: str, reason: str) -> None:
    text = f"""g (float[3,3] x, int64[1] axes) => (y)
        <float[3,3] W = WEIGHT, float[3,3,3] V = WEIGHT, int64[1] far = WEIGHT,
         int64[1] zero = {{0}}, int64[1] one = {{1}}>
        {{ {nodes} }}"""
    assert refusals(text) == [reason]


def test_a_weight_that_is_an_output_itself_is_refused() -> None:
    reasons = refusals(
        """g (float[2,3] x) => (float[2,3] y, float[3,3] W) <float[3,3] W = WEIGHT>
        { a = Transpose(W) y = MatMul(x, a) }"""
    )
    assert reasons == ["W is also used in another form"]


def test_a_matrix_is_transposed_at_most_once() -> None:
    model = parse(
        """g (float[2,4] x) => (float[2,6] y) <float[4,6] W = WEIGHT>
        { a = Transpose(W) b = Transpose(a) y = MatMul(x, b) }"""
    )
    model.graph[1].name = "back"
    one = fold(model)
    assert one.report.fired == 1
    assert one.report.refusals == [Refusal("back", "W.T is transposed already")]


def test_weights_that_need_no_folding_are_not_mentioned() -> None:
    text = """g (float[2,4] x) => (float[2,1,6] y)
        <float[4,6] W = WEIGHT, int64[1] axes = WEIGHT>
        { a = MatMul(x, W) y = Unsqueeze(a, axes) }"""
    assert refusals(text) == []


def test_constants_in_the_graph_are_no_weights() -> None:
    text = """g (float[2,2] x) => (float[2,2] y) <float[2,2] C = {1, 2, 3, 4}>
        { a = Transpose(C) y = MatMul(x, a) }"""
    assert refusals(text) == []
