"""Runs one model with MNN, for as long as its caller asks.

Runs in MNN's own Python:  module_driver.py JSON

JSON: model, inputs and outputs (names), dtypes, backend (number), memory (0 normal, 2 low),
threads.
"""

import ctypes
import json
import os
import sys
import tempfile

import numpy as np
from serving import serve

DYNAMIC_QUANT_OPTIONS = 5
BLOCKWISE = 2
"""A scale for every block of activations: what MNN's own diffusion engine chooses."""

COMPLAINTS = ("Can't Find type", "Can't open file", "Can't load", "Error", "Failed")
"""What MNN prints where it goes on with something else, or with nothing."""


class Module:
    """A loaded model."""

    def __init__(self, wanted):
        from MNN import expr, nn  # prints; only now may it

        self._expr = expr
        self._outputs = wanted["outputs"]
        self._dtypes = wanted["dtypes"]
        with Printed() as printed:
            how = {
                "backend": wanted["backend"],
                "memory": wanted["memory"],
                "precision": "normal",
                "numThread": wanted["threads"],
            }
            self._manager = nn.create_runtime_manager((how,))
            if wanted["memory"]:
                self._manager.set_hint(DYNAMIC_QUANT_OPTIONS, BLOCKWISE)
            self._module = nn.load_module_from_file(
                wanted["model"],
                wanted["inputs"],
                self._outputs,
                runtime_manager=self._manager,
                shape_mutable=True,
            )
        printed.check()

    def describe(self):
        """What the caller asked for is what it gets."""
        return {"outputs": self._outputs}

    def run(self, arrays):
        """Outputs for inputs in the order of the names."""
        expr, given = self._expr, []
        for array, dtype in zip(arrays, self._dtypes, strict=True):
            kind = expr.int if "int" in dtype else expr.float
            value = expr.placeholder(list(array.shape), expr.NCHW, kind)
            value.write(array)
            given.append(value)
        with Printed() as printed:
            results = self._module.forward(given)
            results = results if isinstance(results, (list, tuple)) else [results]
            arrays = [np.array(expr.convert(value, expr.NCHW).read()) for value in results]
        if len(arrays) != len(self._outputs):
            raise RuntimeError(
                "it gives %d outputs of %d: %s"
                % (len(arrays), len(self._outputs), printed.text.strip() or "it says nothing")
            )
        printed.check()
        return arrays


class Printed:
    """What the library prints meanwhile; it tells of failures in no other way."""

    def __enter__(self):
        self._libc = ctypes.CDLL(None)
        self._libc.fflush(None)
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(1)
        os.dup2(self._file.fileno(), 1)
        return self

    def __exit__(self, *_):
        self._libc.fflush(None)
        os.dup2(self._saved, 1)
        os.close(self._saved)
        self._file.seek(0)
        self.text = self._file.read().decode(errors="replace")
        self._file.close()
        sys.stderr.write(self.text)

    def check(self):
        """Raise RuntimeError with the first line that tells of a failure."""
        for line in self.text.splitlines():
            if any(word in line for word in COMPLAINTS):
                raise RuntimeError(line.strip())


if __name__ == "__main__":
    serve(lambda: Module(json.loads(sys.argv[1])))
