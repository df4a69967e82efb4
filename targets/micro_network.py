"""A network small enough to check by hand, with which toolchains are proved."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.weights import Array

GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
micro (float[1, 4, 8, 8] picture) => (float[1, 8, 64] product)
<float[8, 4, 3, 3] kernel, float[8] bias, float[64, 64] matrix>
{
    convolved = Conv <pads = [1, 1, 1, 1]> (picture, kernel, bias)
    rows = Constant <value = int64[3] {1, 8, 64}> ()
    flat = Reshape (convolved, rows)
    product = MatMul (flat, matrix)
}
"""
"""A convolution and a matrix product, and a reshape between.

The matrix has 64 outputs because with 16 tpu-mlir crashes for bm1688 at W8 and W4; those of Stable
Diffusion are multiples of 64.
"""


@dataclass(frozen=True)
class MicroNetwork:
    """Graph and weights as files, the weights as arrays, an input and the exact answer to it."""

    graph: Path
    weights: Path
    values: Mapping[str, Array]
    picture: Array
    product: Array


def write_micro_network(folder: Path) -> MicroNetwork:
    """Write the network into a folder."""
    import onnx

    rng = np.random.default_rng(0)
    values = {
        "kernel": rng.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(8).astype(np.float32),
        "matrix": rng.standard_normal((64, 64)).astype(np.float32),
    }
    picture = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    model = onnx.parser.parse_model(GRAPH)
    del model.graph.initializer[:]
    offset = 0
    for name, array in values.items():
        tensor = model.graph.initializer.add(name=name, dims=array.shape, data_type=1)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, entry in (("location", "w"), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(entry))
        offset += array.nbytes
    graph, weights = folder / "micro.onnx", folder / "w"
    graph.write_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())
    weights.write_bytes(b"".join(array.tobytes() for array in values.values()))
    return MicroNetwork(graph, weights, values, picture, _answer(picture, **values))


def _answer(picture: Array, kernel: Array, bias: Array, matrix: Array) -> Array:
    """The network in numpy, in double precision."""
    padded = np.pad(picture.astype(np.float64)[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    convolved = np.einsum("chwij,ocij->ohw", windows, kernel) + bias[:, None, None]
    product: Array = convolved.reshape(1, 8, 64) @ matrix
    return product
