"""Runs one bmodel on the emulator of a chip with the TPUv7 runtime (BM1690, BM1690E).

Runs in the toolchain's Python 3.10:  tpuv7_driver.py BMODEL

Answers as `emulator_driver.py` does. Uses the C interface of that runtime (tpuv7_rt.h and
tpuv7_modelrt.h of tpu-mlir), the same calls that programs on the device make.
"""

import ctypes
import os
import sys

from serving import serve
from stages import DTYPES, Emulator, Shape, Stage

NUMBERS = {name: number for number, name in DTYPES.items()}


class Tensor(ctypes.Structure):
    """tpuRtTensor_t; `data` is an address of the device."""

    _fields_ = [
        ("dtype", ctypes.c_int),
        ("shape", Shape),
        ("data", ctypes.c_void_p),
        ("reserved", ctypes.c_ubyte * 64),
    ]


class Ports(ctypes.Structure):
    """tpuRtIOInfo_t."""

    _fields_ = [
        ("count", ctypes.c_int),
        ("names", ctypes.POINTER(ctypes.c_char_p)),
        ("scales", ctypes.POINTER(ctypes.c_float)),
        ("zero_points", ctypes.POINTER(ctypes.c_int)),
        ("dtypes", ctypes.POINTER(ctypes.c_int)),
    ]


class Net(ctypes.Structure):
    """tpuRtNetInfo_t."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("is_dynamic", ctypes.c_bool),
        ("input", Ports),
        ("output", Ports),
        ("stage_num", ctypes.c_int),
        ("stages", ctypes.POINTER(Stage)),
        ("reserved", ctypes.c_ubyte * 64),
    ]


class Tpuv7Emulator(Emulator):
    """A device whose memory tensors are copied to and from."""

    def __init__(self, bmodel):
        self.runtime = ctypes.CDLL("libtpuv7_rt.so", mode=ctypes.RTLD_GLOBAL)
        self.networks = ctypes.CDLL("libtpuv7_modelrt.so")
        self._declare()
        self._call(self.runtime.tpuRtInit)
        self._call(self.runtime.tpuRtSetDevice, 0)
        context = ctypes.c_void_p()
        self.handle, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._call(self.networks.tpuRtCreateNetContext, ctypes.byref(context))
        path = os.fsencode(bmodel)
        self._call(self.networks.tpuRtLoadNet, path, context, ctypes.byref(self.handle))
        self._call(self.runtime.tpuRtStreamCreate, ctypes.byref(self.stream))
        names = ctypes.POINTER(ctypes.c_char_p)()
        if self.networks.tpuRtGetNetNames(self.handle, ctypes.byref(names)) != 1:
            raise RuntimeError(f"{bmodel} does not hold exactly one network")
        net = self.networks.tpuRtGetNetInfo(self.handle, names[0])
        super().__init__(
            names[0],
            net.stages[: net.stage_num],
            net.input.dtypes[: net.input.count],
            net.output.dtypes[: net.output.count],
        )

    def _declare(self):
        void, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulonglong
        for library, name, result, arguments in (
            (self.runtime, "tpuRtMalloc", ctypes.c_int, [void, number, ctypes.c_int]),
            (self.runtime, "tpuRtFree", ctypes.c_int, [void, ctypes.c_int]),
            (self.runtime, "tpuRtMemcpyS2D", ctypes.c_int, [void, void, number]),
            (self.runtime, "tpuRtMemcpyD2S", ctypes.c_int, [void, void, number]),
            (self.networks, "tpuRtLoadNet", ctypes.c_int, [text, void, void]),
            (self.networks, "tpuRtGetNetInfo", Net, [void, text]),
            (self.networks, "tpuRtLaunchNet", ctypes.c_int, [void, void, void, text, void]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    @staticmethod
    def _call(function, *arguments):
        status = function(*arguments)
        if status != 0:
            raise RuntimeError(f"{function.__name__} of the chip's runtime failed ({status})")

    def launch(self, inputs, outputs):
        """Compute the outputs, which are there already, from the inputs."""
        read, written = self._tensors(inputs), self._tensors(outputs)
        for array, tensor in zip(inputs, read, strict=True):
            self._call(self.runtime.tpuRtMemcpyS2D, tensor.data, array.ctypes.data, array.nbytes)
        self._call(self.networks.tpuRtLaunchNet, self.handle, read, written, self.name, self.stream)
        # Whatever its name says, it does not wait.
        self._call(self.runtime.tpuRtStreamSynchronize, self.stream)
        for array, tensor in zip(outputs, written, strict=True):
            self._call(self.runtime.tpuRtMemcpyD2S, array.ctypes.data, tensor.data, array.nbytes)
        for tensor in (*read, *written):
            self._call(self.runtime.tpuRtFree, ctypes.byref(ctypes.c_void_p(tensor.data)), 0)

    def _tensors(self, arrays):
        """Descriptions of arrays, each with memory of the device."""
        tensors = (Tensor * len(arrays))()
        for array, tensor in zip(arrays, tensors, strict=True):
            place = ctypes.c_void_p()
            self._call(self.runtime.tpuRtMalloc, ctypes.byref(place), array.nbytes, 0)
            tensor.dtype, tensor.data = NUMBERS[array.dtype.name], place.value
            tensor.shape = Shape.of(array)
        return tensors


if __name__ == "__main__":
    serve(lambda: Tpuv7Emulator(sys.argv[1]))
