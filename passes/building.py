"""New nodes in the place of old ones, with the shapes and types that the house's graphs carry."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, np.dtype[Any]]


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Give `new` the users of `old`, its place among the graph's outputs, and its name."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, old.name = old.name, None


class Builder:
    """Puts new nodes before one node of a graph."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self._graph = graph
        self._before = before

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        extents: Iterable[int | ir.SymbolicDim] | None,
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:
        """Add a node with one output of this shape (None: unknown), typed like its first input."""
        shape = None if extents is None else ir.Shape(extents)
        output = ir.Value(name=None, shape=shape, type=inputs[0].type)
        node = ir.Node("", operator, inputs, attributes, outputs=[output])
        self._graph.insert_before(self._before, node)
        return output

    def elementwise(self, operator: str, *inputs: ir.Value) -> ir.Value:
        """Add a node that works element by element, with extents of 1 stretched."""
        extents = np.broadcast_shapes(*(extents_of(value) for value in inputs))
        return self.add(operator, inputs, extents)

    def reshaped(self, value: ir.Value, extents: Sequence[int]) -> ir.Value:
        """Add a Reshape to these extents."""
        return self.add("Reshape", [value, self.integers(extents)], extents)

    def integers(self, values: Sequence[int]) -> ir.Value:
        """Return a constant int64 vector; one for all that ask for the same."""
        name = f"sdconv_int64_{'_'.join(map(str, values))}"
        return self._constant(name, ir.tensor(list(values), dtype=ir.DataType.INT64))

    def constant(self, name: str, values: Array) -> ir.Value:
        """Return a constant of this name, the same for all that ask for it."""
        return self._constant(name, ir.tensor(values))

    def number(self, value: float) -> ir.Value:
        """Return a constant float32 scalar; one for all that ask for the same."""
        return self._constant(f"sdconv_float32_{value}", ir.tensor(value, dtype=ir.DataType.FLOAT))

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name not in self._graph.initializers:
            constant = ir.Value(
                name=name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self._graph.register_initializer(constant)
        return self._graph.initializers[name]


def extents_of(value: ir.Value) -> tuple[int, ...]:
    """A shape that is known to be static."""
    assert value.shape is not None
    return tuple(value.shape.numpy())
