"""Runs one bmodel on the vendor's chip emulator, for as long as its caller asks.

Runs in the toolchain's Python 3.10:  emulator_driver.py BMODEL

First it says which network and stages the file holds. Uses the C interface of the chip's runtime
(bmruntime_interface.h), the same calls that programs on the device make: the vendor's Python
wrapper knows the first stage of a file only.
"""

import ctypes
import os
import sys

import numpy as np
from serving import serve

DTYPES = {0: "float32", 6: "int32"}
"""bm_data_type_t -> numpy. The artifacts made here have no other types at their ports."""


class Shape(ctypes.Structure):
    """bm_shape_t."""

    _fields_ = [("count", ctypes.c_int), ("dims", ctypes.c_int * 8)]

    @classmethod
    def of(cls, array):
        """The shape of a numpy array."""
        return cls(array.ndim, (ctypes.c_int * 8)(*array.shape))

    def as_list(self):
        """The dimensions."""
        return list(self.dims[: self.count])


class Stage(ctypes.Structure):
    """bm_stage_info_t."""

    _fields_ = [
        ("input_shapes", ctypes.POINTER(Shape)),
        ("output_shapes", ctypes.POINTER(Shape)),
        ("input_mems", ctypes.c_void_p),
        ("output_mems", ctypes.c_void_p),
    ]


class Net(ctypes.Structure):
    """The beginning of bm_net_info_t."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("is_dynamic", ctypes.c_bool),
        ("input_num", ctypes.c_int),
        ("input_names", ctypes.POINTER(ctypes.c_char_p)),
        ("input_dtypes", ctypes.POINTER(ctypes.c_int)),
        ("input_scales", ctypes.POINTER(ctypes.c_float)),
        ("output_num", ctypes.c_int),
        ("output_names", ctypes.POINTER(ctypes.c_char_p)),
        ("output_dtypes", ctypes.POINTER(ctypes.c_int)),
        ("output_scales", ctypes.POINTER(ctypes.c_float)),
        ("stage_num", ctypes.c_int),
        ("stages", ctypes.POINTER(Stage)),
    ]


class Emulator:
    """A device with one loaded bmodel."""

    def __init__(self, bmodel):
        lib = ctypes.CDLL("libbmlib.so.0", mode=ctypes.RTLD_GLOBAL)
        self.runtime = ctypes.CDLL("libbmrt.so.1.0")
        self._declare()
        device = ctypes.c_void_p()
        if lib.bm_dev_request(ctypes.byref(device), 0) != 0:
            raise RuntimeError("the emulated device cannot be opened")
        self.handle = self.runtime.bmrt_create(device)
        if not self.handle or not self.runtime.bmrt_load_bmodel(self.handle, os.fsencode(bmodel)):
            raise RuntimeError(f"the runtime does not load {bmodel}")
        if self.runtime.bmrt_get_network_number(self.handle) != 1:
            raise RuntimeError(f"{bmodel} does not hold exactly one network")
        names = ctypes.POINTER(ctypes.c_char_p)()
        self.runtime.bmrt_get_network_names(self.handle, ctypes.byref(names))
        self.name = names[0]
        self.net = self.runtime.bmrt_get_network_info(self.handle, self.name).contents

    def _declare(self):
        void, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("bmrt_create", void, [void]),
            ("bmrt_load_bmodel", ctypes.c_bool, [void, text]),
            ("bmrt_get_network_number", ctypes.c_int, [void]),
            ("bmrt_get_network_names", None, [void, void]),
            ("bmrt_get_network_info", ctypes.POINTER(Net), [void, text]),
            (
                "bmrt_launch_data",
                ctypes.c_bool,
                [void, text, void, void, ctypes.c_int, void, void, ctypes.c_int, ctypes.c_bool],
            ),
        ):
            function = getattr(self.runtime, name)
            function.restype, function.argtypes = result, arguments

    def describe(self):
        """Network name and, per stage, shape and dtype of every port in order."""
        net = self.net
        return {
            "network": self.name.decode(),
            "stages": [
                {
                    "inputs": self._ports(
                        net.stages[s].input_shapes, net.input_dtypes, net.input_num
                    ),
                    "outputs": self._ports(
                        net.stages[s].output_shapes, net.output_dtypes, net.output_num
                    ),
                }
                for s in range(net.stage_num)
            ],
        }

    @staticmethod
    def _ports(shapes, dtypes, count):
        return [
            {"shape": shapes[i].as_list(), "dtype": DTYPES.get(dtypes[i], f"type {dtypes[i]}")}
            for i in range(count)
        ]

    def run(self, inputs):
        """One inference; the runtime chooses the stage by the shapes of the inputs."""
        described = self.describe()["stages"]
        given = [{"shape": list(a.shape), "dtype": a.dtype.name} for a in inputs]
        stage = next((s for s in described if s["inputs"] == given), None)
        if stage is None:
            raise RuntimeError(f"no stage takes {given}")
        outputs = [np.zeros(p["shape"], p["dtype"]) for p in stage["outputs"]]
        shapes = (Shape * len(inputs))(*map(Shape.of, inputs))
        written = (Shape * len(outputs))()
        done = self.runtime.bmrt_launch_data(
            self.handle,
            self.name,
            self._pointers(inputs),
            shapes,
            len(inputs),
            self._pointers(outputs),
            written,
            len(outputs),
            True,  # outputs go to the memory given here
        )
        if not done:
            raise RuntimeError("the runtime refused to launch")
        if [shape.as_list() for shape in written] != [p["shape"] for p in stage["outputs"]]:
            raise RuntimeError("the runtime wrote other shapes than the stage declares")
        return outputs

    @staticmethod
    def _pointers(arrays):
        return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


if __name__ == "__main__":
    serve(lambda: Emulator(sys.argv[1]))
