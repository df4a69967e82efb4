"""Compile one ONNX graph, whose weights are inputs of it, to libraries.

Runs in TVM's own Python, in the folder where everything lies:  compile.py REQUEST.json

REQUEST: graph (file); inputs (how many of the graph's are no weights); parameters (a name for each
of the others); clml (whether CLML may have its part); host (null, or what the host computes:
`symbol`, and `operator`, `reason` and `operations` for the report); builds (a list: `target`, a tag
or a description; `host`, likewise or null; `library`, a file, .so for this machine or .tar of
objects).

Writes the libraries and `made.json`: the names of the weights that `main` still takes, in order;
CLML's graphs; a report of what runs where; bytes of its tensors at most, and of a graph's. Each
stage is told on a line of its own.
"""

import json
import sys
import warnings
from pathlib import Path

import clml_rewrite
import clml_schema
import memory
import onnx
import tvm
from clml_partition import nodes_of
from host_operator import call_host
from placement import placement
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def main(request):
    """Import, divide, then compile and link each library."""
    print("stage import", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that it writes otherwise
        program = from_onnx(onnx.load(request["graph"]), keep_params_in_input=False)
    program = relax.transform.DecomposeOpsForInference()(program)
    inputs, names, graphs, host = request["inputs"], request["parameters"], [], request["host"]
    if host:
        program, inputs = call_host(program, inputs, host["symbol"]), inputs - 1
    nodes, _ = nodes_of(program["main"])
    if request["clml"]:
        print("stage divide", flush=True)
        program, graphs, names, nodes = clml_rewrite.offload(program, inputs, names)
        program = relax.transform.Normalize()(program)
        for graph in graphs:
            clml_schema.check(json.loads(graph.json), graph.constants)
    made = {
        "parameters": names,
        "graphs": [
            {"symbol": g.symbol, "constants": g.constants, "graph": json.loads(g.json)}
            for g in graphs
        ],
        "report": placement(nodes, graphs, host),
        "activations": memory.peak(program, inputs),
        "pool": max((memory.pool(graph.json) for graph in graphs), default=0),
    }
    Path("made.json").write_text(json.dumps(made, separators=(",", ":")))
    for build in request["builds"]:
        print(f"stage compile {build['library']}", flush=True)
        compile_library(program, build)


def compile_library(program, build):
    """Compile for one target and link, or keep the objects."""
    target = tvm.target.Target(build["target"], host=build["host"])
    pipeline = relax.get_default_pipeline(target) if build["host"] else "default"
    made = tvm.compile(program, target=target, relax_pipeline=pipeline)
    print(f"stage link {build['library']}", flush=True)
    made.export_library(build["library"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
