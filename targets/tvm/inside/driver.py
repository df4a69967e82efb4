"""Runs one program with TVM, for as long as its caller asks.

Runs in TVM's own Python:  driver.py FILE.json

FILE.json: library; file, and for each of its parameters: dtype, shape, offset.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tvm
from serving import serve
from tvm import relax


class Program:
    """A library loaded, with its parameters mapped from their file."""

    def __init__(self, wanted):
        device = tvm.cpu()
        self._machine = relax.VirtualMachine(tvm.runtime.load_module(wanted["library"]), device)
        self._parameters = mapped(wanted["file"], wanted["parameters"])

    def describe(self):
        """Nothing that the caller does not know."""
        return {}

    def run(self, arrays):
        """Outputs for inputs by position."""
        given = [tvm.runtime.tensor(array) for array in arrays]
        try:
            result = self._machine["main"](*given, *self._parameters)
        except Exception as e:  # noqa: BLE001  (TVM raises what it likes)
            raise RuntimeError(f"{type(e).__name__}: {e}".splitlines()[0]) from e
        results = [result] if hasattr(result, "numpy") else list(result)
        return [value.numpy() for value in results]


def mapped(file, parameters):
    """TVM's tensors over the file itself: copied only if somebody writes to them."""
    tensors = []
    for parameter in parameters:
        values = np.memmap(
            file,
            parameter["dtype"],
            "c",
            offset=parameter["offset"],
            shape=tuple(parameter["shape"]) or (1,),
        )
        tensors.append(tvm.runtime.from_dlpack(values.reshape(parameter["shape"])))
    return tensors


if __name__ == "__main__":
    serve(lambda: Program(json.loads(Path(sys.argv[1]).read_text())))
