"""Canonical ports -> a consumer's ports: names, dtypes, and which outputs there are."""

from collections import Counter
from collections.abc import Mapping
from itertools import count

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult, PreconditionError, common

from passes.base import Pass


class PresentInterfacePass(Pass):
    """Rename and order inputs, set their dtypes, and keep the wanted outputs, in the order given.

    `inputs` maps canonical names to the consumer's (name, dtype); `outputs` maps canonical names to
    the consumer's. What only a dropped output needed is removed, weights included.
    """

    name = "present-interface"
    changes_weights = True

    def __init__(self, inputs: Mapping[str, tuple[str, str]], outputs: Mapping[str, str]) -> None:
        super().__init__()
        self._inputs = inputs
        self._outputs = outputs

    def requires(self, model: ir.Model) -> None:
        """The inputs are those given; every wanted output exists; no two ports of one name."""
        inputs, outputs = (
            {value.name for value in side} for side in (model.graph.inputs, model.graph.outputs)
        )
        if inputs != self._inputs.keys() or not self._outputs.keys() <= outputs:
            raise PreconditionError(
                f"inputs {list(self._inputs)} and outputs {list(self._outputs)} wanted; the graph "
                f"has inputs {sorted(map(str, inputs))} and outputs {sorted(map(str, outputs))}"
            )
        ports = Counter([*(name for name, _ in self._inputs.values()), *self._outputs.values()])
        taken = [n for n, uses in ports.items() if uses > 1 or n in model.graph.initializers]
        if taken:
            raise PreconditionError(f"two ports, or a port and an initializer, are named {taken}")

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        graph = model.graph
        inputs, outputs = (  # before any name changes
            {value.name: value for value in side} for side in (graph.inputs, graph.outputs)
        )
        ordered = [inputs[name] for name in self._inputs]
        if ordered != list(graph.inputs):
            graph.inputs[:] = ordered
            self.fire()
        for value, (name, dtype) in zip(ordered, self._inputs.values(), strict=True):
            wanted = ir.DataType.from_numpy(np.dtype(dtype))
            if value.dtype != wanted:
                retype_input(graph, value, wanted)
                self.fire()
            self._rename(graph, value, name)
        kept = [outputs[name] for name in self._outputs]
        if kept != list(graph.outputs):
            graph.outputs[:] = kept
            common.RemoveUnusedNodesPass()(model)
            self.fire()
        for value, name in zip(kept, self._outputs.values(), strict=True):
            self._rename(graph, value, name)
        return self.result(model)

    def _rename(self, graph: ir.Graph, value: ir.Value, name: str) -> None:
        if value.name == name:
            return
        for other in _node_outputs(graph):
            if other.name == name:
                other.name = _free_name(graph, f"{name}_inner")
        value.name = name
        self.fire()


def retype_input(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> None:
    """Change an input's dtype; the graph goes on with the old one through a Cast.

    Users that cast it to the new dtype read it directly instead.
    """
    old = value.dtype
    assert old is not None
    uses = list(value.uses())
    casts = [node for node, _ in uses if _is_inner_cast(node, dtype)]
    others = [(node, index) for node, index in uses if node not in casts]
    if others:
        widened = ir.Value(
            name=_free_name(graph, f"{value.name}_cast"),
            shape=value.shape,
            type=ir.TensorType(old),
        )
        cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", old)], outputs=[widened])
        graph.insert_before(graph[0], cast)
        for node, index in others:
            node.replace_input_with(index, widened)
    for node in casts:
        assert node.graph is not None
        node.outputs[0].replace_all_uses_with(value)
        node.graph.remove(node, safe=True)
    value.dtype = dtype


def _is_inner_cast(node: ir.Node, dtype: ir.DataType) -> bool:
    casts = node.op_type == "Cast" and node.attributes["to"].as_int() == dtype
    return casts and not node.outputs[0].is_graph_output()


def _free_name(graph: ir.Graph, name: str) -> str:
    """`name`, with a number behind it if it is taken."""
    values = (*graph.inputs, *graph.initializers.values(), *_node_outputs(graph))
    taken = {value.name for value in values}
    if name not in taken:
        return name
    return next(free for i in count() if (free := f"{name}_{i}") not in taken)


def _node_outputs(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph.all_nodes() for value in node.outputs]
