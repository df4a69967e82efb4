"""h(a(f(X))) -> Y = f(X), h(Z): attention a leaves the graph, as a graph Z = a(Y) of its own.

Y becomes one more output and Z one more input: whoever runs the graph computes a in between. What
is cut out lies between two bottlenecks, values that all of the network goes through, so it takes
one tensor and gives one; of a VAE that is the attention of its middle with norm and residual.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import PassResult, common

from passes.base import Pass

TAKES, GIVES = "attention_input", "attention_output"
"""Y and Z: ports of both graphs."""


class CutOutAttentionPass(Pass):
    """Cut the graph between the bottlenecks around its softmax; `part` is then what was there.

    Refuses where there are several softmaxes, and where nothing is left before or behind one.
    """

    name = "cut-out-attention"
    changes_weights = True

    def __init__(self) -> None:
        super().__init__()
        self.part: ir.Model | None = None

    def call(self, model: ir.Model) -> PassResult:
        """Cut one attention out."""
        graph = model.graph
        found = [node for node in graph if node.op_type == "Softmax"]
        around = None if len(found) != 1 else _bottlenecks_around(graph, found[0])
        for node in found if around is None else ():
            several = f"one of {len(found)}, and one is cut out"
            self.refuse(node, several if len(found) > 1 else "nothing is left around it")
        if around is not None:
            self._cut(model, *around)
        return self.result(model)

    def _cut(self, model: ir.Model, takes: ir.Value, gives: ir.Value) -> None:
        graph = model.graph
        takes.name, gives.name = TAKES, GIVES
        part = ir.convenience.extract(graph, [takes], [gives])
        constants = dict(part.initializers)  # in any order
        part.initializers.clear()
        part.initializers.update({n: constants[n] for n in graph.initializers if n in constants})
        self.part = ir.Model(part, ir_version=model.ir_version)
        given = ir.Value(name=GIVES, shape=gives.shape, type=gives.type)
        ir.convenience.replace_all_uses_with(gives, given)
        gives.name = None
        graph.inputs.append(given)
        graph.outputs.append(takes)
        common.RemoveUnusedNodesPass()(model)
        self.fire()


def _bottlenecks_around(graph: ir.Graph, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The last bottleneck before a node and the first behind it, neither a port of the graph."""
    order = {one: place for place, one in enumerate(graph)}
    before: ir.Value | None = None
    for value in _bottlenecks(graph):
        producer = value.producer()
        if producer is None or value.is_graph_output():
            continue
        if order[producer] >= order[node]:
            return None if before is None else (before, value)
        before = value
    return None


def _bottlenecks(graph: ir.Graph) -> Sequence[ir.Value]:
    """The values that everything computed later is computed from, in order.

    One is where, of all that depends on the inputs, nothing else is still to be used.
    """
    waiting = {value: len(value.uses()) for value in graph.inputs}
    found = list(waiting) if len(waiting) == 1 else []
    for node in graph:
        varying = [value for value in node.inputs if value in waiting]
        for value in varying:
            assert value is not None
            waiting[value] -= 1
            if waiting[value] == 0 and not value.is_graph_output():
                del waiting[value]
        if varying:
            waiting |= {value: len(value.uses()) for value in node.outputs if value.uses()}
            found += list(waiting) if len(waiting) == 1 else []
    return found
