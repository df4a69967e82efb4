"""What of a program runs where, and why: rows for a `targets.base.Placement`.

Runs in TVM's own Python.
"""

from collections import Counter, defaultdict

from clml_graphs import structure
from clml_partition import HEAVY, operations
from clml_rewrite import nbytes
from host_operator import CALL

VIRTUAL_MACHINE = ("relax.shape_of", "relax.shape_to_tensor")
SHAPES = "TVM's virtual machine computes shapes"

HOST, CLML, OPENCL = "the host", "CLML", "OpenCL"


def placement(nodes, graphs, host):
    """Operations by operator, reasons, graphs, and bytes that change sides.

    `host` describes what is called of the host, None where nothing is.
    """
    rows = defaultdict(Counter)
    for node in nodes:
        if node.operator == CALL:
            operator, where, reason = host["operator"], HOST, host["reason"]
        else:
            operator, where, reason = _named(node), _place(node), node.reason
            reason = reason or (SHAPES if where == HOST else "")
        row = rows[(operator.removeprefix("relax."), where, reason)]
        row["count"] += 1
        row["operations"] += host["operations"] if node.operator == CALL else operations(node)
    return {
        "rows": [
            {"operator": operator, "where": where, "reason": reason, **row}
            for (operator, where, reason), row in rows.items()
        ],
        "graphs": len(graphs),
        "structures": len({structure(graph.json) for graph in graphs}),
        "kernels": sum(len(graph.group) for graph in graphs),
        "handed_over": sum(nbytes(v) for graph in graphs for v in graph.inputs),
        "handed_back": sum(nbytes(v) for graph in graphs for v in graph.outputs),
    }


def _named(node):
    biased = node.kind in HEAVY and node.operator == "relax.add"
    return f"{node.product.op.name} with bias" if biased else node.operator


def _place(node):
    if node.kind:
        return CLML
    return HOST if node.operator in VIRTUAL_MACHINE else OPENCL
