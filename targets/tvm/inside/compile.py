"""Compile one ONNX graph, whose weights are inputs of it, to a library.

Runs in TVM's own Python:  compile.py GRAPH.onnx TARGET LIBRARY.so

TARGET is TVM's description of a target as JSON. Each stage is told on a line of its own.
"""

import json
import sys
import warnings

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def main(graph, target, library):
    """Import, compile, link."""
    print("stage import", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that it writes otherwise
        program = from_onnx(onnx.load(graph), keep_params_in_input=False)
    program = relax.transform.DecomposeOpsForInference()(program)
    print("stage compile", flush=True)
    made = tvm.compile(
        program, target=tvm.target.Target(json.loads(target)), relax_pipeline="default"
    )
    print("stage link", flush=True)
    made.export_library(library)


if __name__ == "__main__":
    main(*sys.argv[1:])
