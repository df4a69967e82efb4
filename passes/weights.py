"""What a weight is to a graph: an initializer whose data lies at an offset of an external file.

Weights are named after the tensor of the original module (``mid_block.resnets.0.conv1.weight``).
A name ending in ``.T`` is that matrix transposed: the graph multiplies by it directly, and
whoever writes the file transposes while streaming, which costs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

WEIGHTS_FILE = "model.onnx.data"
"""The external file of a bundle's and an artifact's graph, beside it."""

TRANSPOSED = ".T"
STORED = ".stored"
"""Ends the name of a weight as a file of somebody else's holds it (`passes.linked_weights`)."""

ALIGNMENT = 4096
"""Offsets of weights in the external file are multiples of a memory page, as ONNX advises."""


@dataclass(frozen=True)
class Place:
    """Where a weight lies in its external file. `dtype` is a numpy name, `offset` in bytes."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


def weights_of(model: ir.Model) -> dict[str, ir.Value]:
    """The initializers that are weights, by name."""
    return {
        name: value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }


def is_weight(value: ir.Value | None, rank: int) -> bool:
    """Whether a value is a weight of so many axes."""
    if value is None or not isinstance(value.const_value, ir.ExternalTensor):
        return False
    return value.shape is not None and len(value.shape) == rank


def weight_places(model: ir.Model) -> dict[str, Place]:
    """Shape, dtype and place in the external file of every weight, by name."""
    places = {}
    for name, value in weights_of(model).items():
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        places[name] = Place(
            tuple(tensor.shape.numpy()),
            tensor.dtype.numpy().name,
            tensor.offset or 0,
            tensor.nbytes,
        )
    return places


def unwritten(
    location: str, name: str, shape: ir.Shape, dtype: ir.DataType, offset: int
) -> ir.ExternalTensor:
    """Return a weight whose bytes will lie at `offset` of the file `location`."""
    length = int(np.prod(shape.numpy(), dtype=np.int64)) * dtype.bitwidth // 8
    return ir.ExternalTensor(location, offset, length, dtype, shape=shape, name=name, base_dir=".")


def plan_offsets(model: ir.Model) -> None:
    """Give every weight, in its present shape, a place of its own in the external file.

    Linked ones stay where they are.
    """
    offset = 0
    for name, value in weights_of(model).items():
        if name.endswith(STORED):
            continue
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        assert value.shape is not None and value.dtype is not None
        value.const_value = unwritten(str(tensor.location), name, value.shape, value.dtype, offset)
        offset += -(-value.const_value.nbytes // ALIGNMENT) * ALIGNMENT


@contextmanager
def hidden_weights(model: ir.Model) -> Iterator[dict[str, ir.Value]]:
    """Turn weights into graph inputs for a while, so that no tool can look at or fold them.

    Yields the weights by name. On leaving, every input of those names becomes a weight again,
    with the tensor it had; the model inside may have been replaced node by node meanwhile.
    """
    weights = weights_of(model)
    tensors = {name: value.const_value for name, value in weights.items()}
    for name, value in weights.items():
        assert value.dtype is not None  # an input without a type is no input
        model.graph.initializers.pop(name)
        value.const_value = None
        model.graph.inputs.append(value)
    try:
        yield weights
    finally:
        graph = model.graph  # whatever stands there by now
        for value in list(graph.inputs):
            if value.name in tensors:
                graph.inputs.remove(value)
                value.const_value = tensors[value.name]
                graph.initializers[value.name] = value
