"""The part of a program that the host runs, in the place that was left for it.

Runs in TVM's own Python. The imported `main` takes what the host gives as the last of its inputs,
and gives what the host takes as the last of its outputs.
"""

import tvm
from clml_partition import needed
from tvm import relax

CALL = "relax.call_dps_packed"


def call_host(program, inputs, symbol):
    """Let `main` call `symbol` (what it takes, then a tensor for what it gives) in between.

    `inputs` says how many of its parameters are no weights.
    """
    function = program["main"]
    (block,) = function.body.blocks
    *bindings, last = block.bindings
    *results, takes = last.value.fields
    gives = function.params[inputs - 1]
    before, behind, late = [], [], {gives}
    for binding in bindings:
        if late.isdisjoint(needed(binding.value)):
            before.append(binding)
        else:
            behind.append(binding)
            late.add(binding.var)
    call = relax.VarBinding(gives, relax.call_dps_packed(symbol, relax.Tuple([takes]), gives.ty))
    whole = results[0] if len(results) == 1 else relax.Tuple(results)
    output = relax.Var("output", whole.ty)
    made = relax.Function(
        [p for i, p in enumerate(function.params) if i != inputs - 1],
        relax.SeqExpr(
            [relax.DataflowBlock([*before, call, *behind, relax.VarBinding(output, whole)])], output
        ),
        output.ty,
        is_pure=True,
        attrs=function.attrs,
    ).without_attr("num_input")
    return relax.transform.CanonicalizeBindings()(tvm.IRModule({"main": made}))
