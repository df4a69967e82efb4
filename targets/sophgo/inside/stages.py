"""The stages of a network as both runtimes of chip emulators describe them.

Runs in the toolchain's Python 3.10.
"""

import ctypes

import numpy as np

DTYPES = {0: "float32", 6: "int32"}
"""bm_data_type_t and tpuRtDataType_t -> numpy. The artifacts made here have no other types at their
ports."""


class Shape(ctypes.Structure):
    """bm_shape_t, tpuRtShape_t."""

    _fields_ = [("count", ctypes.c_int), ("dims", ctypes.c_int * 8)]

    @classmethod
    def of(cls, array):
        """The shape of a numpy array."""
        return cls(array.ndim, (ctypes.c_int * 8)(*array.shape))

    def as_list(self):
        """The dimensions."""
        return list(self.dims[: self.count])


class Stage(ctypes.Structure):
    """bm_stage_info_t, tpuRtStageInfo_t."""

    _fields_ = [
        ("input_shapes", ctypes.POINTER(Shape)),
        ("output_shapes", ctypes.POINTER(Shape)),
        ("input_mems", ctypes.c_void_p),
        ("output_mems", ctypes.c_void_p),
    ]


class Emulator:
    """A device with one loaded network: `name` and `stages`; `dtypes` of inputs and of outputs."""

    def __init__(self, name, stages, input_dtypes, output_dtypes):
        self.name = name
        self._stages = [
            {
                "inputs": _ports(stage.input_shapes, input_dtypes),
                "outputs": _ports(stage.output_shapes, output_dtypes),
            }
            for stage in stages
        ]

    def describe(self):
        """Network name and, per stage, shape and dtype of every port in order."""
        return {"network": self.name.decode(), "stages": self._stages}

    def run(self, inputs):
        """One inference; the runtime chooses the stage by the shapes of the inputs."""
        given = [{"shape": list(a.shape), "dtype": a.dtype.name} for a in inputs]
        stage = next((s for s in self._stages if s["inputs"] == given), None)
        if stage is None:
            raise RuntimeError(f"no stage takes {given}")
        outputs = [np.zeros(p["shape"], p["dtype"]) for p in stage["outputs"]]
        self.launch(inputs, outputs)
        return outputs

    def launch(self, inputs, outputs):
        """Compute the outputs, which are there already, from the inputs. Raises RuntimeError."""
        raise NotImplementedError


def _ports(shapes, dtypes):
    return [
        {"shape": shapes[i].as_list(), "dtype": DTYPES.get(dtype, f"type {dtype}")}
        for i, dtype in enumerate(dtypes)
    ]
