"""Runs one lowered network in the vendor's interpreter, for as long as its caller asks.

Runs in the toolchain's Python 3.10:  interpreter_driver.py MLIR

The interpreter computes every operation as the chip is told to (which are rounded to half
precision, and where), in float32 on this machine. It keeps all tensors of a network at once
unless it is told to reuse their memory.
"""

import sys

import numpy as np
import pymlir
from serving import serve


class Interpreter:
    """A lowered network, loaded with its weights."""

    def __init__(self, mlir):
        pymlir.set_mem_mode("reused_mem")
        self.module = pymlir.module()
        self.module.load(mlir)

    def describe(self):
        """The names of the ports in order."""
        return {"inputs": list(self.module.input_names), "outputs": list(self.module.output_names)}

    def run(self, inputs):
        """One inference: float32 in and out, whatever the ports' types."""
        for name, array in zip(self.module.input_names, inputs, strict=True):
            self.module.set_tensor(name, array.astype(np.float32), array.shape)
        self.module.invoke(True)
        return [np.array(self.module.get_tensor(name)) for name in self.module.output_names]


if __name__ == "__main__":
    serve(lambda: Interpreter(sys.argv[1]))
