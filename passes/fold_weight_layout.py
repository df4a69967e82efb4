"""Transpose(W) -> W.T, Unsqueeze(W) -> W with more ones: a weight enters the graph as it is used.

Exporters write a linear layer as MatMul(X, Transpose(W)) and a group norm's scale as
Unsqueeze(gamma). The transposition is done once, by whoever writes the weights, under the name
``W.T`` (see `passes.weights`); the added extents of 1 change no byte.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.weights import TRANSPOSED, weights_of

AS_IT_IS = "as it is"
Use = tuple[ir.Node, int]
"""A node that reads a value, and at which of its inputs."""


class FoldWeightLayoutPass(Pass):
    """Fold layout operators on weights into the weights' own layout.

    1. `Transpose(W)` of a matrix: the weight becomes ``W.T`` with the extents swapped.
    2. `Unsqueeze(W, axes)` with constant axes: the weight gets the extents of 1.

    A folded weight may fold again (Unsqueeze of Unsqueeze), but is transposed at most once.

    Refuses when the weight is also used in another form (both would have to be stored), when
    what is transposed is no matrix, when axes are not constant, and when the outcome is an output
    of the graph.
    """

    name = "fold-weight-layout"
    changes_weights = True

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every place."""
        pending = list(weights_of(model).values())
        for value in pending:  # grows while it is walked
            uses: list[Use] = list(value.uses())
            folding = next((use[0] for use in uses if _form(use) != AS_IT_IS), None)
            if folding is None:
                continue
            obstacle = _obstacle(value, uses)
            if obstacle is not None:
                self.refuse(folding, obstacle)
                continue
            nodes = [node for node, _ in uses]
            pending.append(self._replace(model, value, nodes, _new_layout(value, folding)))
        return self.result(model)

    def _replace(
        self,
        model: ir.Model,
        value: ir.Value,
        nodes: Sequence[ir.Node],
        layout: tuple[str, list[int]],
    ) -> ir.Value:
        name, shape = layout
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor) and value.name
        new_tensor = ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=tensor.base_dir,
        )
        new = ir.Value(
            name=name,
            shape=new_tensor.shape,
            type=ir.TensorType(tensor.dtype),
            const_value=new_tensor,
        )
        for node in nodes:
            node.outputs[0].replace_all_uses_with(new)
            assert node.graph is not None
            node.graph.remove(node, safe=True)  # a subgraph's node leaves that subgraph
            self.fire()
        del model.graph.initializers[value.name]
        model.graph.register_initializer(new)
        return new


def _form(use: Use) -> str:
    """What a use makes of the weight; the same text for the same layout."""
    node, index = use
    if index == 0 and node.op_type == "Transpose":
        return f"Transpose {_permutation(node)}"
    if index == 0 and node.op_type == "Unsqueeze":
        return f"Unsqueeze {_axes(node)}"
    return AS_IT_IS


def _obstacle(value: ir.Value, uses: Sequence[Use]) -> str | None:
    """Why the weight cannot be stored as its users want it; None if it can."""
    assert value.name is not None and value.shape is not None
    node, _ = uses[0]
    if value.is_graph_output() or len({_form(use) for use in uses}) > 1:
        return f"{value.name} is also used in another form"
    if any(user.outputs[0].is_graph_output() for user, _ in uses):
        return f"{value.name} in that form is an output of the graph"
    if value.name.endswith(TRANSPOSED):
        return f"{value.name} is transposed already"
    if node.op_type == "Unsqueeze":
        return None if _axes(node) is not None else "the axes are not constant"
    if len(value.shape) != 2:
        return f"{value.name} of shape {list(value.shape.numpy())} is no matrix"
    return None if _permutation(node) == [1, 0] else f"{value.name} keeps its axes where they are"


def _new_layout(value: ir.Value, node: ir.Node) -> tuple[str, list[int]]:
    assert value.name is not None and value.shape is not None
    shape = list(value.shape.numpy())
    if node.op_type == "Transpose":
        return value.name + TRANSPOSED, shape[::-1]
    axes = _axes(node)
    assert axes is not None
    for axis in sorted(axis % (len(shape) + len(axes)) for axis in axes):
        shape.insert(axis, 1)
    return value.name, shape


def _permutation(node: ir.Node) -> list[int]:
    attribute = node.attributes.get("perm")
    return list(attribute.as_ints()) if attribute else [1, 0]


def _axes(node: ir.Node) -> list[int] | None:
    value = node.inputs[1]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor):  # a weight is never read
        return None
    return [int(axis) for axis in tensor.numpy().reshape(-1)]
