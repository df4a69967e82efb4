"""Runs one lowered network in the vendor's interpreter, for as long as its caller asks.

Runs in the toolchain's Python 3.10:  interpreter_driver.py MLIR NORMS

The interpreter computes every operation in float32 on this machine and rounds its result to the
precision that the chip is told to use there. It keeps all tensors of a network at once unless it
is told to reuse their memory.

NORMS is JSON, [[name, the operation whose result it takes, groups], ...]: group norms in F16, which
give NaN on the chip where their sums overflow, and so do here.
"""

import json
import sys

import numpy as np
import pymlir
from norm_sums import sums_overflow
from serving import serve


class Interpreter:
    """A lowered network, loaded with its weights."""

    def __init__(self, mlir, norms):
        pymlir.set_mem_mode("reused_mem")
        self.module = pymlir.module()
        self.module.load(mlir)
        self.module.set_progress_silent(True)
        self.module.before_invoke(self._enter)
        self.module.after_invoke(self._leave)
        self._norms = {name: (taken, groups) for name, taken, groups in norms}
        self._overflows = False
        self._given = {}
        self._write = None

    def describe(self):
        """The names of the ports in order."""
        return {"inputs": list(self.module.input_names), "outputs": list(self.module.output_names)}

    def run(self, inputs, write=None):
        """One inference: float32 in and out, whatever the ports' types.

        `write(name, read)` is told of every tensor when it is computed: later its memory is lent.
        """
        self._write = write
        self._given = dict(zip(self.module.input_names, inputs, strict=True))
        self.module.invoke(True)
        return [np.array(self.module.get_tensor(name)) for name in self.module.output_names]

    def _enter(self, name):
        """Set an input when its turn comes: until then its memory is lent to other tensors."""
        if name in self._given:
            array = self._given[name]
            self.module.set_tensor(name, array.astype(np.float32), array.shape)
        taken, groups = self._norms.get(name, (None, 0))
        self._overflows = taken is not None and sums_overflow(self._tensor(taken), groups)

    def _leave(self, name):
        if self._overflows:
            shape = self._tensor(name).shape
            self.module.set_tensor(name, np.full(shape, np.nan, np.float32), shape)
        if self._write is not None:
            self._write(name, self._tensor)

    def _tensor(self, name):
        return np.array(self.module.get_tensor(name))


if __name__ == "__main__":
    serve(lambda: Interpreter(sys.argv[1], json.loads(sys.argv[2])))
