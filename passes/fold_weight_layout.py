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


class FoldWeightLayoutPass(Pass):
    """Fold layout operators on weights into the weights' own layout.

    1. `Transpose(W)` of a matrix: the weight becomes ``W.T`` with the extents swapped.
    2. `Unsqueeze(W, axes)` with constant axes: the weight gets the extents of 1.

    Refuses when the weight is also used in another form (both would have to be stored), when
    what is transposed is no matrix, and when axes are not constant.
    """

    name = "fold-weight-layout"
    changes_weights = True

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every place."""
        for value in weights_of(model).values():
            nodes = [use.node for use in value.uses()]
            if not any(node.op_type in ("Transpose", "Unsqueeze") for node in nodes):
                continue
            if len({_form(node) for node in nodes}) > 1:
                self.refuse(nodes[0], f"{value.name} is also used in another form")
                continue
            turned = self._new_layout(value, nodes[0])
            if turned is not None:
                self._replace(model, value, nodes, turned)
        return self.result(model)

    def _new_layout(self, value: ir.Value, node: ir.Node) -> tuple[str, list[int]] | None:
        assert value.name is not None and value.shape is not None
        shape = list(value.shape.numpy())
        if node.op_type == "Transpose":
            if len(shape) != 2:
                self.refuse(node, f"{value.name} of shape {shape} is no matrix")
                return None
            return value.name + TRANSPOSED, shape[::-1]
        axes = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] else None
        if axes is None:
            self.refuse(node, "the axes are not constant")
            return None
        rank = len(shape) + axes.size
        for axis in sorted(int(a) % rank for a in axes.numpy().reshape(-1)):
            shape.insert(axis, 1)
        return value.name, shape

    def _replace(
        self,
        model: ir.Model,
        value: ir.Value,
        nodes: Sequence[ir.Node],
        layout: tuple[str, list[int]],
    ) -> None:
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
            model.graph.remove(node, safe=True)
            self.fire()
        del model.graph.initializers[value.name]
        model.graph.register_initializer(new)


def _form(node: ir.Node) -> str:
    if node.op_type not in ("Transpose", "Unsqueeze"):
        return "as it is"
    value = node.inputs[1] if len(node.inputs) > 1 else None
    axes = None if value is None else ir.convenience.get_const_tensor(value)
    return f"{node.op_type} {None if axes is None else axes.numpy().tolist()}"
