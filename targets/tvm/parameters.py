"""What a compiled program takes besides its inputs: weights, and parts and other forms of them.

Nodes that only move, cut, scale or cast a weight are taken out of the graph; what they made of it
becomes a parameter, and whoever writes the parameters does the same with the values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.weights import Array, WeightSource
from passes.weights import weights_of


@dataclass(frozen=True)
class Step:
    """One thing that is done to a weight: `kind` with its `values`.

    transpose (axes), reshape (extents), slice (axis, start, stop), scale (one number), cast (a
    numpy name).
    """

    kind: str
    values: tuple[Any, ...]

    def apply(self, array: Array) -> Array:
        """Do it."""
        if self.kind == "transpose":
            return array.transpose(self.values)
        if self.kind == "reshape":
            return array.reshape(self.values)
        if self.kind == "slice":
            axis, start, stop = self.values
            return np.asarray(array[(slice(None),) * axis + (slice(start, stop),)])
        if self.kind == "scale":
            return np.asarray(array * np.float32(self.values[0]))
        assert self.kind == "cast", self.kind
        return np.asarray(array.astype(self.values[0]))


@dataclass(frozen=True)
class Parameter:
    """A tensor that a program takes: what `steps` make of the weight `source`.

    `name` says all of it, so parameters of the same name are the same.
    """

    name: str
    source: str
    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(
        cls, source: str, steps: Sequence[Step], shape: Sequence[int], dtype: str
    ) -> "Parameter":
        """Name it after its making."""
        words = [f"{step.kind} {','.join(map(str, step.values))}" for step in steps]
        return cls(" | ".join([source, *words]), source, tuple(steps), tuple(shape), dtype)

    def made_from(self, weight: Array) -> Array:
        """The values, contiguous, from those of its weight."""
        for step in self.steps:
            weight = step.apply(weight)
        return np.ascontiguousarray(weight, self.dtype).reshape(self.shape)


class ParameterStream:
    """The parameters' values, of a source of weights: a `converter.stream.TensorStream`."""

    def __init__(self, parameters: Mapping[str, Parameter], weights: WeightSource) -> None:
        self._parameters = parameters
        self._weights = weights

    def names(self) -> Sequence[str]:
        """By weight, so that each is read once while its pages are there."""
        order = {name: place for place, name in enumerate(self._weights.names())}
        return sorted(self._parameters, key=lambda name: order[self._parameters[name].source])

    def blocks(self, name: str) -> Iterator[Array]:
        """The whole parameter at once."""
        parameter = self._parameters[name]
        yield parameter.made_from(self._weights.read(parameter.source))
        self._weights.forget(parameter.source)


def take_parameters(model: ir.Model) -> list[Parameter]:
    """Make every weight an input, behind the inputs that there are, in the order of these.

    Nodes of which `Step` knows the kind are taken out. Weights are named ``p0``, ``p1`` and so on:
    TVM renames what is no name in C, and goes by the order.
    """
    graph = model.graph
    steps: dict[ir.Value, tuple[str, tuple[Step, ...]]] = {
        value: (name, ()) for name, value in weights_of(model).items()
    }
    folded = []
    for node in graph:
        source = None if not node.inputs else steps.get(node.inputs[0])  # type: ignore[arg-type]
        step = None if source is None else _step(node)
        if source is not None and step is not None:
            steps[node.outputs[0]] = (source[0], (*source[1], step))
            folded.append(node)
    parameters: list[Parameter] = []
    for value, (source_name, made_by) in steps.items():
        if value.is_graph_output() or any(use.node not in folded for use in value.uses()):
            parameters.append(_take(graph, value, source_name, made_by, len(parameters)))
    for node in reversed(folded):
        graph.remove(node, safe=True)
    for name in weights_of(model):
        del graph.initializers[name]
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
    return parameters


def _take(
    graph: ir.Graph, value: ir.Value, source: str, steps: tuple[Step, ...], index: int
) -> Parameter:
    assert value.shape is not None and value.dtype is not None
    shape, dtype = value.shape.numpy(), value.dtype
    taken = ir.Value(name=f"p{index}", shape=ir.Shape(shape), type=ir.TensorType(dtype))
    ir.convenience.replace_all_uses_with(value, taken, replace_graph_outputs=True)
    graph.inputs.append(taken)
    return Parameter.of(source, steps, shape, dtype.numpy().name)


def _step(node: ir.Node) -> Step | None:
    """What a node does to its first input, where all else is constant."""
    output = node.outputs[0]
    if output.shape is None or not output.shape.is_static() or output.is_graph_output():
        return None
    shape = tuple(output.shape.numpy())
    if node.op_type == "Transpose":
        order = node.attributes.get("perm")
        axes = tuple(range(len(shape)))[::-1] if order is None else tuple(order.as_ints())
        return Step("transpose", axes)
    if node.op_type == "Cast":
        return Step("cast", (ir.DataType(node.attributes["to"].as_int()).numpy().name,))
    if node.op_type in ("Reshape", "Unsqueeze", "Squeeze"):
        return Step("reshape", shape)
    return _arithmetic(node)


def _arithmetic(node: ir.Node) -> Step | None:
    """A slice, or a product with one number."""
    numbers = [_numbers(value) for value in node.inputs[1:]]
    if node.op_type == "Slice" and all(n is not None and len(n) == 1 for n in numbers):
        start, stop, axis, *stride = (int(n[0]) for n in numbers if n is not None)
        if min(start, stop, axis) >= 0 and stride in ([], [1]):
            return Step("slice", (axis, start, stop))
    if node.op_type == "Mul" and numbers[0] is not None and len(numbers[0]) == 1:
        return Step("scale", (float(numbers[0][0]),))
    return None


def _numbers(value: ir.Value | None) -> list[float] | None:
    """The numbers of a constant that is no weight."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > 4:
        return None
    return [number.item() for number in tensor.numpy().reshape(-1)]
