"""Convert one ONNX model with MNN's converter, through its C entry.

Runs in MNN's own Python, in an empty working folder:  convert.py MODEL.onnx MODEL.mnn [OPTION]...

The entry says True whatever happened; the caller looks at what was printed and written. It keeps
what it works on in a file of a fixed name in the working folder: two of them in one folder would
use each other's weights, and notice nothing.
"""

import sys

import _tools

if __name__ == "__main__":
    SOURCE, TARGET, *OPTIONS = sys.argv[1:]
    _tools.mnnconvert(
        [
            *("mnnconvert", "-f", "ONNX", "--modelFile", SOURCE, "--MNNModel", TARGET),
            *("--bizCode", "MNN", "--saveExternalData=1"),
            *OPTIONS,
        ]
    )
