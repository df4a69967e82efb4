"""Runs one program with TVM, for as long as its caller asks.

Runs in TVM's own Python:  driver.py FILE.json

FILE: library; device ("cpu" or "opencl") and plugin (what gives TVM the device, or null);
parameters and constants (file, and for each: name, dtype, shape, offset); graphs (the file with
CLML's, or null), which are computed by the reference; host (the symbol of what the caller computes,
or null).
"""

import ctypes
import json
import sys
from pathlib import Path

import clml_reference
import numpy as np
import tvm
import tvm_ffi
from serving import serve
from tvm import relax


class Program:
    """A library loaded, with its parameters mapped from their file."""

    def __init__(self, wanted, ask_back):
        if wanted["plugin"]:
            ctypes.CDLL(wanted["plugin"], ctypes.RTLD_GLOBAL)
        self._device = tvm.device(wanted["device"], 0)
        if not self._device.exist:
            raise RuntimeError(f"there is no device for {wanted['device']} here")
        if wanted["graphs"]:
            constants = dict(mapped(wanted["file"], wanted["constants"]))
            for graph in json.loads(Path(wanted["graphs"]).read_text()):
                register_graph(graph, constants)
        if wanted["host"]:
            register(wanted["host"], 1, ask_back)
        library = tvm.runtime.load_module(wanted["library"])
        self._machine = relax.VirtualMachine(library, self._device)
        self._parameters = [
            tvm.runtime.from_dlpack(values)
            if wanted["device"] == "cpu"
            else tvm.runtime.tensor(values, self._device)
            for _, values in mapped(wanted["file"], wanted["parameters"])
        ]

    def describe(self):
        """Where it runs."""
        return {"device": self._device.device_name or "cpu"}

    def run(self, arrays):
        """Outputs for inputs by position."""
        given = [tvm.runtime.tensor(array, self._device) for array in arrays]
        try:
            result = self._machine["main"](*given, *self._parameters)
        except Exception as e:
            raise RuntimeError(f"{type(e).__name__}: {e}".splitlines()[0]) from e
        results = [result] if hasattr(result, "numpy") else list(result)
        return [value.numpy() for value in results]


def mapped(file, parameters):
    """Names and values over the file itself: copied only if somebody writes to them."""
    for parameter in parameters:
        values = np.memmap(
            file,
            parameter["dtype"],
            "c",
            offset=parameter["offset"],
            shape=tuple(parameter["shape"]) or (1,),
        )
        yield parameter["name"], values.reshape(parameter["shape"])


def register_graph(described, constants):
    """Let the program call a CLML graph."""
    graph = described["graph"]
    count = sum(node["op"] == "input" for node in graph["nodes"])
    register(described["symbol"], count, lambda given: clml_reference.run(graph, constants, given))


def register(symbol, count, compute):
    """Let the program call `compute`: with so many inputs, then tensors for what it gives."""

    def call(*tensors):
        outputs = compute([t.numpy() for t in tensors[:count]])
        for tensor, values in zip(tensors[count:], outputs, strict=True):
            tensor.copyfrom(np.ascontiguousarray(values))

    tvm_ffi.register_global_func(symbol, call, override=True)


if __name__ == "__main__":
    WANTED = json.loads(Path(sys.argv[1]).read_text())
    serve(lambda ask_back: Program(WANTED, ask_back), asks_back=True)
