"""What a CLML graph computes, by definition: one kernel after the other, in numpy.

Knows nothing of TVM. Results are rounded to the graph's dtype after every kernel; within one,
products are added up in float32. What a device does differently is not imitated.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Json = Mapping[str, Any]

BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


def run(graph: Json, constants: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a graph (parsed JSON) for its inputs in order; constants by name."""
    values: dict[int, Array] = {}
    given = iter(inputs)
    for index, node in enumerate(graph["nodes"]):
        (shape,), (dtype,) = node["attrs"]["shape"], node["attrs"]["dtype"]
        if node["op"] == "input":
            values[index] = np.asarray(next(given)).reshape(shape)
        elif node["op"] == "const":
            values[index] = np.asarray(constants[node["name"]]).reshape(shape)
        else:
            operands = [values[place].astype(np.float32) for place, _, _ in node["inputs"]]
            result = KERNELS[node["name"]](node["attrs"], *operands)
            with np.errstate(over="ignore"):  # what is beyond float16 is infinite
                values[index] = result.reshape(shape).astype(dtype)
    return [values[place] for place, _, _ in graph["heads"]]


def _conv2d(attrs: Json, data: Array, kernel: Array, bias: Array | None = None) -> Array:
    """A convolution as one product: a row for every place, a column for every number it sees."""
    top, left, bottom, right = attrs["padding"]
    data = np.pad(data[0], ((0, 0), (top, bottom), (left, right)))
    _, _, rows, columns = attrs["shape"][0]
    (down, across), (rise, run_) = attrs["strides"], attrs["dilation"]
    outputs, channels, height, width = kernel.shape
    result = np.zeros((outputs, rows * columns), np.float32)
    for y in range(height):
        for x in range(width):
            seen = data[:, y * rise :: down, x * run_ :: across][:, :rows, :columns]
            result += kernel[:, :, y, x] @ seen.reshape(channels, -1)
    return result if bias is None else result + bias.reshape(-1, 1)


def _dense(attrs: Json, first: Array, second: Array, bias: Array | None = None) -> Array:
    del attrs
    product: Array = first @ second.T
    return product if bias is None else product + bias


def _softmax(attrs: Json, data: Array) -> Array:
    axis = attrs["axis"]
    shares = np.exp(data - data.max(axis, keepdims=True))
    return np.asarray(shares / shares.sum(axis, keepdims=True))


def _reshape(attrs: Json, data: Array) -> Array:
    del attrs
    return data


def _concatenate(attrs: Json, *data: Array) -> Array:
    return np.concatenate(data, attrs["axis"])


def _binary(operation: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda _, first, second: operation(first, second)


KERNELS: dict[str, Callable[..., Array]] = {
    "nn.conv2d": _conv2d,
    "nn.dense": _dense,
    "nn.softmax": _softmax,
    "reshape": _reshape,
    "concatenate": _concatenate,
    **{name: _binary(operation) for name, operation in BINARY.items()},
}
