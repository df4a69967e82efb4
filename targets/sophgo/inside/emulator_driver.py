"""Runs one bmodel on the vendor's chip emulator, for as long as its caller asks.

Runs in the toolchain's Python 3.10:  emulator_driver.py BMODEL

First it says which network and stages the file holds. Uses the C interface of the chip's runtime
(bmruntime_interface.h), the same calls that programs on the device make: the vendor's Python
wrapper knows the first stage of a file only. `tpuv7_driver.py` does the same for chips with another
runtime.
"""

import ctypes
import os
import sys

from serving import serve
from stages import Emulator, Shape, Stage


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


class BmEmulator(Emulator):
    """A device of the BM1684X's kin."""

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
        net = self.runtime.bmrt_get_network_info(self.handle, names[0]).contents
        super().__init__(
            names[0],
            net.stages[: net.stage_num],
            net.input_dtypes[: net.input_num],
            net.output_dtypes[: net.output_num],
        )

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

    def launch(self, inputs, outputs):
        """Compute the outputs, which are there already, from the inputs."""
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
        if [tuple(shape.as_list()) for shape in written] != [a.shape for a in outputs]:
            raise RuntimeError("the runtime wrote other shapes than the stage declares")

    @staticmethod
    def _pointers(arrays):
        return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


if __name__ == "__main__":
    serve(lambda: BmEmulator(sys.argv[1]))
