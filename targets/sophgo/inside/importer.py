"""ONNX graph + weights file -> the vendor's "top" MLIR, with the weights mapped, never loaded.

Runs in the toolchain's Python 3.10:  importer.py GRAPH WEIGHTS NAME MLIR

The stock `model_transform` holds a model's weights several times over (10 GB for the UNet of
SD1.5) to simplify a graph that arrives here already simple. This converter reads the graph
alone, hands out views into the mapped weights file, and drops pages once they are written.
"""

import mmap
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data
from transform.OnnxConverter import OnnxConverter
from transform.OnnxOpt import onnx_opt

LOOKED_AT = 65536
"""Up to this many elements a tensor goes into the graph itself: the vendor's fusions compare
scales, shifts and norm weights with constants."""


VIEWS = {
    "Reshape": lambda values, extents: values.reshape(tuple(map(int, extents))),
    "Slice": lambda values, starts, ends, axes: values[_window(values.ndim, starts, ends, axes)],
    "Unsqueeze": lambda values, axes: np.expand_dims(values, tuple(map(int, axes))),
}
"""Operators that passes put on weights: what comes out is looked at through the mapped file."""


def _window(rank, starts, ends, axes):
    """The index that an ONNX Slice with steps of 1 stands for."""
    window = [slice(None)] * rank
    for start, end, axis in zip(starts, ends, axes, strict=True):
        window[int(axis)] = slice(int(start), int(end))
    return tuple(window)


class MappedWeights:
    """The weights file: tensors as views; `forget` gives the pages back."""

    def __init__(self, path):
        with Path(path).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def bytes_of(self, tensor):
        """The bytes of an initializer with external data, uncopied."""
        place = {entry.key: entry.value for entry in tensor.external_data}
        start = int(place.get("offset", 0))
        return memoryview(self._map)[start : start + int(place["length"])]

    def forget(self):
        """Release what was read; a later read fetches it again."""
        self._map.madvise(mmap.MADV_DONTNEED)


class MappedConverter(OnnxConverter):
    """The vendor's importer for a static, simplified graph whose weights stay in their file."""

    def __init__(self, name, graph, weights):
        self._mapped = MappedWeights(weights)
        super().__init__(name, graph, input_shapes=[], output_names=[], test_input="")

    def load_onnx_model(self, onnx_file, input_shapes, *_ignored, **__ignored):
        """Read the graph without weights, name its ports, run the vendor's fusions."""
        self.model = onnx.load(onnx_file, load_external_data=False)
        self.onnx_file = onnx_file
        for tensor in self.model.graph.initializer:
            self.addWeight(tensor.name, self._values(tensor))
        self._fold_views()
        self.input_names = self.get_input_names(self.model)
        self.num_input = len(self.input_names)
        self.input_shape_assign(input_shapes)
        self.input_shapes = self.get_input_shapes(self.model)
        self.input_types = self.get_input_types(self.model)
        self.output_types = self.get_output_types(self.model)
        self.get_output_name(self.model.graph)
        self.model, self.node_name_mapping = onnx_opt(self.model, False)

    def _values(self, tensor):
        """One initializer as float32, the only type the vendor's importer keeps."""
        if uses_external_data(tensor):
            raw = self._mapped.bytes_of(tensor)
            count = int(np.prod(tensor.dims, dtype=np.int64))
            if tensor.data_type == onnx.TensorProto.FLOAT and count > LOOKED_AT:
                return np.frombuffer(raw, np.float32).reshape(tuple(tensor.dims))
            tensor.raw_data = bytes(raw)
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        return numpy_helper.to_array(tensor).astype(np.float32)

    def _fold_views(self):
        """Turn parts and other shapes of weights, which the graph computes, into weights."""
        graph = self.model.graph
        for node in list(graph.node):
            if node.op_type not in VIEWS or not all(map(self.isWeight, node.input)):
                continue
            view = VIEWS[node.op_type](*map(self.getWeight, node.input))
            (name,) = node.output
            self.addWeight(name, view)
            if view.size <= LOOKED_AT:
                graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(view), name))
            else:
                graph.initializer.add(name=name, dims=view.shape, data_type=onnx.TensorProto.FLOAT)
            graph.node.remove(node)

    def find_named_tensor(self, name):
        """A constant's values: from the mapped weights first, then as the vendor finds them."""
        if name in self.tensors:
            return self.tensors[name]
        return super().find_named_tensor(name)

    def WeightToNpz(self, weight_file):  # noqa: N802  (the vendor's name)
        """Write the used tensors one by one, as `numpy.savez` would."""
        with zipfile.ZipFile(weight_file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, values in self.tensors.items():
                if name not in self.operands:
                    continue
                with archive.open(name + ".npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.ascontiguousarray(values))
                self._mapped.forget()


if __name__ == "__main__":
    GRAPH, WEIGHTS, NAME, MLIR = sys.argv[1:]
    MappedConverter(NAME, GRAPH, WEIGHTS).generate_mlir(MLIR)
