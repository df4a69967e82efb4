"""How much memory a program's tensors take at most, by who is alive when.

Runs in TVM's own Python. What an allocator loses between tensors is not counted.
"""

import json
import math

import tvm
from clml_partition import needed
from clml_rewrite import nbytes
from tvm import relax

FUSION = tvm.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.RewriteDataflowReshape(),
    ]
)
"""What every pipeline of TVM does before it plans memory: what is fused is no tensor."""


def peak(program, inputs):
    """Bytes of `main`'s inputs (the first so many parameters) and intermediate tensors."""
    function = FUSION(program)["main"]
    bindings = [b for block in function.body.blocks for b in block.bindings]
    owners = {}
    for binding in bindings:  # of a view, what it is a view of
        seen = needed(binding.value) if _is_view(binding.value) else []
        viewed = seen[0] if seen else binding.var
        owners[binding.var] = owners.get(viewed, viewed)
    last = {}
    for place, binding in enumerate(bindings):
        for variable in needed(binding.value):
            last[owners.get(variable, variable)] = place
    kept = {owners.get(v, v) for v in (*function.params, *needed(function.body.body))}
    ends = {}
    for variable, place in last.items():
        if variable not in kept:
            ends.setdefault(place, []).append(variable)
    alive = most = sum(nbytes(parameter) for parameter in function.params[:inputs])
    for place, binding in enumerate(bindings):
        if not _is_view(binding.value):
            alive += _size(binding.var)
        most = max(most, alive)
        alive -= sum(_size(variable) for variable in ends.get(place, []))
    return most


def _is_view(value):
    """Reshapes and parts of a tuple take no memory of their own."""
    if isinstance(value, relax.TupleGetItem):
        return True
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") in (
        "relax.reshape",
        "relax.expand_dims",
    )


def _size(variable):
    if isinstance(variable.ty, relax.TupleType):
        return sum(_size_of(field) for field in variable.ty.fields)
    return _size_of(variable.ty)


def _size_of(kind):
    if not isinstance(kind, relax.TensorType):
        return 0
    dtype = str(getattr(kind.dtype, "dtype", kind.dtype))
    return math.prod(int(e) for e in kind.shape.values) * (8 if "64" in dtype else WIDTHS[dtype])


WIDTHS = {"float32": 4, "int32": 4, "float16": 2, "bool": 1, "uint8": 1, "int8": 1}


def pool(graph_json):
    """Bytes that a CLML graph needs beside its constants: its tensors, inputs and outputs too.

    A graph keeps inputs and outputs in a form of its own.
    """
    nodes = json.loads(graph_json)["nodes"]
    heads = {place for place, _, _ in json.loads(graph_json)["heads"]}
    sizes = [
        0 if n["op"] == "const"
        else math.prod(n["attrs"]["shape"][0]) * WIDTHS[n["attrs"]["dtype"][0]]
        for n in nodes
    ]  # fmt: skip
    last = {}
    for index, node in enumerate(nodes):
        for place, _, _ in node.get("inputs", []):
            last[place] = index
    alive = sum(size for n, size in zip(nodes, sizes, strict=True) if n["op"] == "input")
    most = alive
    for index, node in enumerate(nodes):
        if node["op"] != "kernel":
            continue
        alive += sizes[index]
        most = max(most, alive)
        gone = {p for p, _, _ in node["inputs"] if last[p] == index and p not in heads}
        alive -= sum(sizes[p] for p in gone if nodes[p]["op"] == "kernel")
    return most
