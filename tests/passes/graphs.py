"""Graphs from ONNX text, weights in a file beside them, and ONNX Runtime to see what they compute.

In the text, `float[4,3] W = WEIGHT` declares a weight: an initializer with a place in a file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

from converter.weights import Array
from passes.base import Pass
from passes.weights import weight_places

P = TypeVar("P", bound=Pass)

WEIGHTS_FILE = "weights.bin"
HEADER = '<ir_version: 10, opset_import: ["" : 18]>'


def parse(text: str, header: str = HEADER) -> ir.Model:
    """A graph with the shapes ONNX infers. Its weights have places, in a file not yet written."""
    external = f'["location": "{WEIGHTS_FILE}"]'
    proto = onnx.parser.parse_model(header + text.replace("WEIGHT", external))
    offset = 0
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            dtype = ir.DataType(tensor.data_type)
            length = int(np.prod(tensor.dims, dtype=np.int64)) * int(dtype.itemsize)
            for key, value in {"offset": offset, "length": length}.items():
                tensor.external_data.add(key=key, value=str(value))
            offset += length
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def random_weights(model: ir.Model) -> dict[str, Array]:
    """Random values of every weight's shape, by name."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(place.shape).astype(place.dtype)
        for name, place in weight_places(model).items()
    }


def write_weights(model: ir.Model, folder: Path, values: Mapping[str, Array]) -> None:
    """Write the file in which the model's weights have their places."""
    places = weight_places(model)
    content = bytearray(max(place.offset + place.nbytes for place in places.values()))
    for name, place in places.items():
        content[place.offset : place.offset + place.nbytes] = values[name].tobytes()
    (folder / WEIGHTS_FILE).write_bytes(content)


def random_inputs(model: ir.Model) -> dict[str, Array]:
    """Small random values for every input; symbolic extents become 2."""
    rng = np.random.default_rng(1)
    inputs = {}
    for value in model.graph.inputs:
        assert value.name and value.shape is not None and value.dtype is not None
        shape = [extent if isinstance(extent, int) else 2 for extent in value.shape]
        inputs[value.name] = np.asarray(3 * rng.random(shape), value.dtype.numpy())
    return inputs


def run(
    model: ir.Model, inputs: Mapping[str, Array], folder: Path | None = None
) -> dict[str, Array]:
    """What the graph computes literally: ONNX Runtime with its optimisers off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder))
    session = onnxruntime.InferenceSession(
        to_bytes(model), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def assert_equal(
    found: Mapping[str, Array], expected: Mapping[str, Array], rtol: float = 0
) -> None:
    """The same names in the same order, the same dtypes, and equal values.

    `rtol` is relative to the largest value; 0, equal to the last bit, unless sums are reordered.
    """
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        atol = rtol * float(np.max(np.abs(values), initial=0))
        np.testing.assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)


def to_bytes(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


def apply(make: Callable[[], P], model: ir.Model) -> P:
    """Run a pass on a model, and see to it that a second run finds nothing to do."""
    one = make()
    one(model)
    after = to_bytes(model)
    assert not make()(model).modified
    assert to_bytes(model) == after
    return one


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def names(values: Sequence[ir.Value]) -> list[str]:
    return [value.name or "" for value in values]
