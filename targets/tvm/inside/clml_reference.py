"""What a CLML graph computes, by definition: one kernel after the other, in numpy.

Knows nothing of TVM. Results are rounded to the graph's dtype after every kernel; within one,
products are added up in float32. What a device does differently is not imitated.
"""

import numpy as np

BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


def run(graph, constants, inputs):
    """The outputs of a graph (parsed JSON) for its inputs in order; constants by name."""
    values, given = {}, iter(inputs)
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


def _conv2d(attrs, data, kernel, bias=None):
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


def _dense(attrs, first, second, bias=None):
    del attrs
    product = first @ second.T
    return product if bias is None else product + bias


def _softmax(attrs, data):
    axis = attrs["axis"]
    shares = np.exp(data - data.max(axis, keepdims=True))
    return shares / shares.sum(axis, keepdims=True)


def _reshape(attrs, data):
    del attrs
    return data


def _concatenate(attrs, *data):
    return np.concatenate(data, attrs["axis"])


def _binary(operation):
    return lambda _, first, second: operation(first, second)


KERNELS = {
    "nn.conv2d": _conv2d,
    "nn.dense": _dense,
    "nn.softmax": _softmax,
    "reshape": _reshape,
    "concatenate": _concatenate,
    **{name: _binary(operation) for name, operation in BINARY.items()},
}
