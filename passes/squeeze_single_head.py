"""softmax(Q @ K) @ V on [B,1,N,C] -> the same on [B,N,C]: one head needs no axis of heads.

The VAE's middle block is such attention. tpu-mlir 1.30.2 generates wrong code for the four-axis
form in F16 and BF16 when there are as many tokens as channels (relative error 0.5; 2.5e-3 after
this rewrite).
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder


class SqueezeSingleHeadPass(Pass):
    """Rewrite MatMul, Softmax, MatMul whose second axis is 1 to three axes.

    Reshapes are put around the three operators; together with the Transposes that split heads
    they fold away in `FoldTransposeChainPass`, which runs next.

    Refuses when something stands between the operators (a mask), when one of them has other
    users, when a shape is not static, and when softmax does not run over the last axis.
    """

    name = "squeeze-single-head"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every place."""
        for softmax in [node for node in model.graph if node.op_type == "Softmax"]:
            shape = _extents(softmax.inputs[0])
            if shape is None or len(shape) != 4 or shape[1] != 1:
                continue
            reason = _refusal(softmax)
            if reason is None:
                self._rewrite(model.graph, softmax)
            else:
                self.refuse(softmax, reason)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, softmax: ir.Node) -> None:
        scores, attended = _producer(softmax), next(iter(softmax.outputs[0].uses())).node
        assert scores is not None
        build = Builder(graph, before=attended)
        left, right = (_squeezed(build, factor) for factor in scores.inputs)
        product = _product(build, left, right)
        extents = _extents(product)
        assert extents is not None
        weights = build.add("Softmax", [product], extents, [ir.AttrInt64("axis", -1)])
        result = _product(build, weights, _squeezed(build, attended.inputs[1]))
        output = attended.outputs[0]
        assert output.shape is not None
        restored = build.reshaped(result, output.shape.numpy())
        ir.convenience.replace_all_uses_with(output, restored, replace_graph_outputs=True)
        restored.name, output.name = output.name, None
        factors = (*scores.inputs, attended.inputs[1])
        for node in (attended, softmax, scores):
            graph.remove(node, safe=True)
        for factor in factors:
            _remove_unused_scalings(graph, factor)
        self.fire()


def _product(build: Builder, left: ir.Value, right: ir.Value) -> ir.Value:
    first, last = _extents(left), _extents(right)
    assert first is not None and last is not None
    return build.add("MatMul", [left, right], (*first[:-1], last[-1]))


def _squeezed(build: Builder, value: ir.Value | None) -> ir.Value:
    """Return the value without its second axis; a scaling is done after the Reshape."""
    assert value is not None
    extents = _extents(value)
    assert extents is not None
    flat = (extents[0], *extents[2:])
    scale = _scaling(value)
    if scale is None:
        return build.reshaped(value, flat)
    return build.add("Mul", [_squeezed(build, scale[0]), scale[1]], flat)


def _refusal(softmax: ir.Node) -> str | None:  # noqa: PLR0911  (one return per reason)
    """Why this softmax is not the middle of a plain one-head attention; None when it is."""
    scores = _producer(softmax)
    users = [use.node for use in softmax.outputs[0].uses()]
    axis = softmax.attributes.get("axis")
    if scores is None or scores.op_type != "MatMul":
        return "its input is no MatMul (a mask stands between)"
    if len(list(scores.outputs[0].uses())) != 1 or scores.outputs[0].is_graph_output():
        return "the scores have other users"
    if len(users) != 1 or users[0].op_type != "MatMul" or softmax.outputs[0].is_graph_output():
        return "its output goes elsewhere than into one MatMul"
    if users[0].inputs[0] is not softmax.outputs[0]:
        return "its output is not the first factor of the MatMul"
    if axis is not None and axis.as_int() not in (-1, 3):
        return f"it runs over axis {axis.as_int()}"
    for value in (*scores.inputs, users[0].inputs[1], users[0].outputs[0]):
        extents = _extents(value)
        if extents is None or len(extents) != 4 or extents[1] != 1:
            return "a factor has no second axis of 1"
    return None


def _scaling(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """(factor, scalar) when the value is a factor times one constant number."""
    node = value.producer()
    if node is None or node.op_type != "Mul":
        return None
    factor, scalar = node.inputs
    assert factor is not None and scalar is not None
    constant = ir.convenience.get_const_tensor(scalar)
    if constant is None or constant.size != 1 or len(constant.shape) > 1:
        return None
    return factor, scalar


def _remove_unused_scalings(graph: ir.Graph, value: ir.Value | None) -> None:
    """Drop the scalings that were repeated on three axes, so that chains end where they did."""
    while value is not None and _scaling(value) is not None and not value.uses():
        node = value.producer()
        assert node is not None
        value = node.inputs[0]
        graph.remove(node, safe=True)


def _producer(node: ir.Node) -> ir.Node | None:
    return None if node.inputs[0] is None else node.inputs[0].producer()


def _extents(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return value.shape.numpy()
