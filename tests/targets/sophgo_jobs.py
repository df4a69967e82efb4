"""A network of one convolution to compile with the fake toolchain, and weights for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from converter.files import sha256_of
from converter.sizes import Size
from converter.weights import Array, TensorSpec
from targets.base import CompileJob
from targets.sophgo.bmodel.reading import read_bmodel, stages, weights_of

GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
{name} (float[batch, 4, h, w] sample, int64[1, 77] tokens) => (float[batch, 6, h, w] noise_pred)
{{
    noise_pred = Conv (sample, kernel, bias)
}}
"""

SHAPES = {"kernel": (6, 4, 1, 1), "bias": (6,)}


def random_values(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}


class Weights:
    """A WeightSource of arrays; it remembers which of them were read."""

    def __init__(self, arrays: Mapping[str, Array], key: str, file: Path | None = None) -> None:
        self._arrays = arrays
        self.key = key
        self.file = file
        self.tensor_keys: Mapping[str, str] = {}
        self.was_read: list[str] = []

    def names(self) -> Sequence[str]:
        return list(self._arrays)

    def spec(self, name: str) -> TensorSpec:
        return TensorSpec(self._arrays[name].shape, "float32")

    def read(self, name: str) -> Array:
        self.was_read.append(name)
        return self._arrays[name]

    def forget(self, name: str) -> None:
        assert name in self.was_read


def job(folder: Path, size: Size, *, name: str = "unet", batch: int = 1) -> CompileJob:
    model = onnx.parser.parse_model(GRAPH.format(name=name))
    for index, (weight, shape) in enumerate(SHAPES.items()):
        tensor = model.graph.initializer.add(name=weight, dims=shape, data_type=1)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {
            "location": "model.onnx.data",
            "offset": 4096 * index,
            "length": 4 * int(np.prod(shape)),
        }
        for key, entry in place.items():
            tensor.external_data.add(key=key, value=str(entry))
    graph = folder / f"{name}.onnx"
    onnx.save(model, graph)
    shapes = (("sample", (batch, 4, size.height // 8, size.width // 8)), ("tokens", (1, 77)))
    return CompileJob("unet", graph, sha256_of(graph), shapes, size, batch, "f16")


def file_of(folder: Path, arrays: Mapping[str, Array]) -> Path:
    """A weights file with the offsets of `GRAPH`."""
    path = folder / "model.onnx.data"
    path.write_bytes(b"".join(array.tobytes().ljust(4096, b"\0") for array in arrays.values()))
    return path


def region_of(bmodel: Path, stage: int = 0) -> bytes:
    """The weight region of a stage."""
    opened = read_bmodel(bmodel)
    binary = weights_of(list(stages(opened.model))[stage][1])
    assert binary is not None
    return opened.bytes_of(binary)


def half(arrays: Mapping[str, Array]) -> bytes:
    """What the fake compiler would make of weights."""
    return b"".join(a.astype(np.float16).tobytes().ljust(4096, b"\0") for a in arrays.values())
