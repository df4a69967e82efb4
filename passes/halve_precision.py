"""f(X, W) in float32 -> float32(f(float16(X), float16(W))): a graph in half precision.

Ports keep their dtypes. What half precision cannot hold stays in float32: norms (a group's sum of
squares passes 65504) and what sines are taken of (an angle's error is that of its sine).
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder
from passes.weights import weights_of

WIDE = ("InstanceNormalization", "LayerNormalization", "Cast")
ANGLES = ("Cos", "Sin")

VIEWS = ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Mul")
"""What is made of a weight alone is cast once, at its end."""

SIZES = ("Resize",)
"""Operators of whose inputs only the first holds numbers to compute with."""

FULL, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


class HalvePrecisionPass(Pass):
    """Compute in float16, but for norms and angles.

    A graph in which nothing is computed in float32 beyond these is left as it is.
    """

    name = "halve-precision"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite in place, from the inputs on."""
        graph = model.graph
        if any(node.op_type == "Cast" and _casts_to(node) == HALF for node in graph):
            return PassResult(model, modified=False)  # it is done
        views = _views(model)
        angles = _behind_angles(graph)
        casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        for node in list(graph):
            if node in views or not _computes(node):
                continue
            wide = node.op_type in WIDE or node in angles
            self._turn(graph, node, FULL if wide else HALF, casts)
        for index, output in enumerate(graph.outputs):
            if output.dtype == HALF:
                graph.outputs[index] = _restored(graph, output)
        return self.result(model)

    def _turn(
        self,
        graph: ir.Graph,
        node: ir.Node,
        dtype: ir.DataType,
        casts: dict[tuple[ir.Value, ir.DataType], ir.Value],
    ) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in (FULL, HALF) or value.dtype == dtype:
                continue
            if index > 0 and node.op_type in SIZES:
                continue
            if (value, dtype) not in casts:
                casts[value, dtype] = _cast(graph, node, value, dtype)
            node.replace_input_with(index, casts[value, dtype])
        if node.op_type == "Cast":
            return
        for output in node.outputs:
            if output.dtype in (FULL, HALF):
                output.type = ir.TensorType(dtype)  # its own: values may share one
        if dtype == HALF:
            self.fire()


def _cast(graph: ir.Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The value in another dtype: a constant anew, anything else through a Cast."""
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None and not isinstance(constant, ir.ExternalTensor):
        with np.errstate(over="ignore"):  # what is beyond becomes infinite, as masks are meant
            tensor = ir.tensor(constant.numpy().astype(dtype.numpy()))
        name = f"{value.name}_{dtype.name.lower()}"
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
        graph.register_initializer(made)
        return made
    assert value.shape is not None
    build = Builder(graph, before=node)
    made = build.add("Cast", [value], value.shape.numpy(), [ir.AttrInt64("to", dtype)])
    made.type = ir.TensorType(dtype)
    return made


def _restored(graph: ir.Graph, output: ir.Value) -> ir.Value:
    """An output of the graph in float32 again, under its name."""
    name, producer = output.name, output.producer()
    assert producer is not None and output.shape is not None
    output.name = f"{name}_half"
    made = ir.Value(name=name, shape=output.shape, type=ir.TensorType(FULL))
    cast = ir.Node("", "Cast", [output], [ir.AttrInt64("to", FULL)], outputs=[made])
    graph.append(cast)
    return made


def _computes(node: ir.Node) -> bool:
    return any(v is not None and v.dtype in (FULL, HALF) for v in (*node.inputs, *node.outputs))


def _casts_to(node: ir.Node) -> ir.DataType:
    return ir.DataType(node.attributes["to"].as_int())


def _views(model: ir.Model) -> set[ir.Node]:
    """The nodes that are made of one weight and constants alone."""
    made = set(weights_of(model).values())
    views = set()
    for node in model.graph:
        if node.op_type not in VIEWS or not node.inputs or node.inputs[0] not in made:
            continue
        if all(ir.convenience.get_const_tensor(v) is not None for v in node.inputs[1:] if v):
            views.add(node)
            made.update(node.outputs)
    return views


def _behind_angles(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that angles are computed by, and the sines and cosines themselves."""
    found: set[ir.Node] = {node for node in graph if node.op_type in ANGLES}
    pending = list(found)
    while pending:
        for value in pending.pop().inputs:
            before = None if value is None else value.producer()
            if before is not None and before not in found:
                found.add(before)
                pending.append(before)
    return found
