"""Runs a model once with MNN:  run_once.py MODEL

Runs in MNN's own Python. Inputs are read from files of raw float32 numbers, MODEL.NAME, and are
zeros where there is none; outputs are written to such files.
"""

import sys
from pathlib import Path

import MNN
import numpy as np


def main(model):
    """Read, run, write."""
    net = MNN.Interpreter(model)
    session = net.createSession({"precision": "high"})
    for name, tensor in net.getSessionInputAll(session).items():
        file = Path(f"{model}.{name}")
        if not file.is_file():
            np.zeros(tensor.getShape(), np.float32).tofile(file)
        tensor.copyFrom(host(tensor, np.fromfile(file, np.float32)))
    net.runSession(session)
    for name, tensor in net.getSessionOutputAll(session).items():
        found = host(tensor, np.zeros(tensor.getShape(), np.float32))
        tensor.copyToHostTensor(found)
        np.array(found.getNumpyData(), np.float32).tofile(f"{model}.{name}")


def host(tensor, values):
    """A tensor like another with these values, channels first."""
    shape = tensor.getShape()
    channels_first = MNN.Tensor_DimensionType_Caffe
    return MNN.Tensor(shape, MNN.Halide_Type_Float, values.reshape(shape), channels_first)


if __name__ == "__main__":
    main(sys.argv[1])
