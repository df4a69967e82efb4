"""Runs one bmodel on the emulator of a chip with the TPUv7 runtime (BM1690, BM1690E).

Runs in the toolchain's Python 3.10:  tpuv7_driver.py BMODEL

Answers as `emulator_driver.py` does. Uses the C interface of that runtime (tpuv7_rt.h and
tpuv7_modelrt.h), the same calls that programs on the device make. Tensors are copied to and from
the device's memory here. The emulated chip's processors talk through sockets, which they leave
behind in the folder that TPU_SCALAER_EMULATOR_WORKDIR names.
"""

import ctypes
import os
import sys

import numpy as np
from serving import serve

DTYPES = {0: "float32", 6: "int32"}
"""tpuRtDataType_t -> numpy. The artifacts made here have no other types at their ports."""


class Shape(ctypes.Structure):
    """tpuRtShape_t."""

    _fields_ = [("count", ctypes.c_int), ("dims", ctypes.c_int * 8)]

    def as_list(self):
        """The dimensions."""
        return list(self.dims[: self.count])


class Tensor(ctypes.Structure):
    """tpuRtTensor_t; `data` is an address of the device."""

    _fields_ = [
        ("dtype", ctypes.c_int),
        ("shape", Shape),
        ("data", ctypes.c_void_p),
        ("reserved", ctypes.c_ubyte * 64),
    ]


class Stage(ctypes.Structure):
    """tpuRtStageInfo_t."""

    _fields_ = [
        ("input_shapes", ctypes.POINTER(Shape)),
        ("output_shapes", ctypes.POINTER(Shape)),
        ("input_mems", ctypes.c_void_p),
        ("output_mems", ctypes.c_void_p),
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


class Emulator:
    """A device with one loaded bmodel."""

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
        self.name = names[0]
        self.net = self.networks.tpuRtGetNetInfo(self.handle, self.name)

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

    def describe(self):
        """Network name and, per stage, shape and dtype of every port in order."""
        net = self.net
        stages = [net.stages[s] for s in range(net.stage_num)]
        return {
            "network": self.name.decode(),
            "stages": [
                {
                    "inputs": self._ports(stage.input_shapes, net.input),
                    "outputs": self._ports(stage.output_shapes, net.output),
                }
                for stage in stages
            ],
        }

    @staticmethod
    def _ports(shapes, ports):
        return [
            {
                "shape": shapes[i].as_list(),
                "dtype": DTYPES.get(ports.dtypes[i], f"type {ports.dtypes[i]}"),
            }
            for i in range(ports.count)
        ]

    def run(self, inputs):
        """One inference; the runtime chooses the stage by the shapes of the inputs."""
        given = [{"shape": list(a.shape), "dtype": a.dtype.name} for a in inputs]
        stage = next((s for s in self.describe()["stages"] if s["inputs"] == given), None)
        if stage is None:
            raise RuntimeError(f"no stage takes {given}")
        outputs = [np.zeros(p["shape"], p["dtype"]) for p in stage["outputs"]]
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
        return outputs

    def _tensors(self, arrays):
        """Descriptions of arrays, each with memory of the device."""
        numbers = {name: number for number, name in DTYPES.items()}
        tensors = (Tensor * len(arrays))()
        for array, tensor in zip(arrays, tensors, strict=True):
            place = ctypes.c_void_p()
            self._call(self.runtime.tpuRtMalloc, ctypes.byref(place), array.nbytes, 0)
            tensor.dtype, tensor.data = numbers[array.dtype.name], place.value
            tensor.shape = Shape(array.ndim, (ctypes.c_int * 8)(*array.shape))
        return tensors


if __name__ == "__main__":
    serve(lambda: Emulator(sys.argv[1]))
