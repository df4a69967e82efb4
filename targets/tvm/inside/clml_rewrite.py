"""A program with calls of CLML graphs in the place of what these compute.

Runs in TVM's own Python.
"""

from collections import defaultdict

import tvm
from clml_graphs import Graph
from clml_partition import classify, divide, dtype_of, needed, nodes_of, shape_of
from tvm import relax


def offload(program, inputs, names):
    """Return the program without what goes to CLML, its graphs, the weights left, and all nodes.

    `inputs` says how many of `main`'s parameters are inputs; `names` names those behind, which are
    weights. Weights that only CLML needs are no parameters of the new `main`.
    """
    function = program["main"]
    weights = dict(zip(function.params[inputs:], names, strict=True))
    outputs = set(needed(function.body.body))
    nodes, users = nodes_of(function)
    nodes = classify(nodes, users, set(weights), outputs)
    groups = divide(nodes, users, set(weights), outputs)
    graphs = [
        Graph(f"sdconv_clml_{index}", group, users, outputs, weights)
        for index, group in enumerate(groups)
    ]
    written = _write(function, nodes, graphs, inputs)
    kept = [weights[p] for p in written.params[inputs:]]
    return tvm.IRModule({"main": written}), graphs, kept, nodes


def _write(function, nodes, graphs, inputs):
    """The same function with every group as one call, at its stage."""
    bindings = []
    calls = defaultdict(list)
    for graph in graphs:
        calls[graph.group[0].stage].append(graph)
    stages = sorted({node.stage for node in nodes})
    absorbing = {v for node in nodes if node.kind for v in node.absorbed}
    order = {binding.var: i for i, binding in enumerate(function.body.blocks[0].bindings)}
    for stage in stages:
        for graph in calls[stage]:
            bindings += _call(graph)
        rest = [n for n in nodes if n.stage == stage and not n.kind and n.variable not in absorbing]
        rest.sort(key=lambda node: order[node.variable])
        bindings += [relax.VarBinding(node.variable, node.call) for node in rest]
    block = relax.DataflowBlock(bindings)
    used = {variable for binding in bindings for variable in needed(binding.value)}
    used |= set(needed(function.body.body))
    params = [p for i, p in enumerate(function.params) if i < inputs or p in used]
    made = relax.Function(
        params,
        relax.SeqExpr([block], function.body.body),
        function.ret_ty,
        is_pure=True,
        attrs=function.attrs,
    )
    return made.without_attr("num_input") if "num_input" in (made.attrs or {}) else made


def _call(graph):
    """Bindings that run a graph and give its results the variables they had."""
    types = [variable.ty for variable in graph.outputs]
    call = relax.call_dps_packed(graph.symbol, relax.Tuple(graph.inputs), types)
    if len(types) == 1:
        return [relax.VarBinding(graph.outputs[0], call)]
    together = relax.DataflowVar(f"{graph.symbol}_results", relax.TupleType(types))
    parts = [
        relax.VarBinding(variable, relax.TupleGetItem(together, index))
        for index, variable in enumerate(graph.outputs)
    ]
    return [relax.VarBinding(together, call), *parts]


def nbytes(variable):
    """Bytes of a tensor."""
    size = tvm.runtime.DataType(dtype_of(variable)).bits // 8
    for extent in shape_of(variable):
        size *= extent
    return size
