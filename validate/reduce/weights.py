"""The weights of a graph that holds them itself, as a weight source with a file of its own."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converter.files import sha256_of
from converter.weights import Array, TensorSpec
from passes.weights import WEIGHTS_FILE, plan_offsets, unwritten, weight_places

SMALL = 64
"""Elements up to which a constant stays in the graph: shapes, axes, factors."""


class SplitWeights:
    """A `WeightSource` over the weights that `split_weights` took out of a graph."""

    tensor_keys: Mapping[str, str] = {}

    def __init__(self, file: Path, tensors: Mapping[str, Array]) -> None:
        self.file: Path | None = file
        self.key = sha256_of(file)
        self._tensors = tensors

    def names(self) -> Sequence[str]:
        """Every tensor's name."""
        return list(self._tensors)

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype of one tensor."""
        return TensorSpec(self._tensors[name].shape, self._tensors[name].dtype.name)

    def read(self, name: str) -> Array:
        """One tensor."""
        return self._tensors[name]

    def forget(self, name: str) -> None:
        """They are few and small."""

    def blocks(self, name: str) -> Iterator[Array]:
        """The whole tensor at once."""
        yield self._tensors[name]


def split_weights(graph: Path, bare: Path, file: Path) -> SplitWeights:
    """Write `graph` without its large constants to `bare`, and those to `file` beside it."""
    model = ir.from_proto(onnx.load(graph))
    tensors = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None and value.shape is not None and value.dtype is not None
        if tensor.size > SMALL and value.dtype.is_floating_point():
            tensors[name] = tensor.numpy()
            value.const_value = unwritten(WEIGHTS_FILE, name, value.shape, value.dtype, 0)
    plan_offsets(model)
    places = weight_places(model)
    end = max((place.offset + place.nbytes for place in places.values()), default=0)
    content = np.zeros(end, np.uint8)
    for name, place in places.items():
        flat = np.ascontiguousarray(tensors[name]).view(np.uint8).ravel()
        content[place.offset : place.offset + place.nbytes] = flat
    file.write_bytes(content.tobytes())
    bare.write_bytes(ir.to_proto(model).SerializeToString())
    return SplitWeights(file, tensors)
