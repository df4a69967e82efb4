"""Weights to compile a skeleton with: random, so that each can be found again in what comes out.

The vendor's importer drops a scale of ones and a bias of zeros and compares values with constants;
random ones are never that, so the skeleton keeps a place for every weight there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.stream import file_size
from converter.weights import Array
from passes.weights import Place, weight_places, weights_of

STEP = 4 * 1025
"""Bytes from one weight's placeholder to the next. An odd number of values, so that outputs cut off
a matrix (at multiples of 32, of 64 inputs or more) are not also those of another matrix."""


@dataclass(frozen=True)
class Tape:
    """One stretch of random float32 values, little longer than the largest weight.

    Each weight is a window of it, `STEP` further on than the one before: a few hundred megabytes
    stand for the gigabytes of a whole model. Its `count` values are yet to be written to `path`.
    """

    path: Path
    count: int
    windows: Mapping[str, Place]
    constants: Sequence[str]
    """The graph's own tensors: no weight has an influence on them."""

    def weights(self) -> dict[str, Array]:
        """The placeholders by weight, float32, mapped and read-only."""
        values = np.memmap(self.path, np.float32, "r", shape=(self.count,))
        return {
            name: values[window.offset // 4 :][: window.nbytes // 4].reshape(window.shape)
            for name, window in self.windows.items()
        }


def point_at_tape(model: ir.Model, copy: Path, tape: Path) -> Tape:
    """Turn the weights of `model` into windows of `tape`, a file yet to be; write `copy`."""
    weights = weights_of(model)
    for index, value in enumerate(weights.values()):
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        value.const_value = ir.ExternalTensor(
            tape.name,
            index * STEP,
            tensor.nbytes,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            base_dir=".",
        )
    ir.save(model, copy)
    windows = weight_places(model)
    constants = [name for name in model.graph.initializers if name not in weights]
    return Tape(tape, file_size(windows) // 4, windows, constants)
