"""x (1 + erf(x / sqrt 2)) / 2 -> x/2 + |x|/2 - |x| exp(-p(|x|)): GELU without the error function.

A GELU is x times the normal distribution's share below x, and the share below -u is exp(-p(u)) for
a p that is nearly a parabola. With the polynomial here, found by minimising the largest error of
the GELU (Lawson's algorithm on 0 to 6.5; beyond, it grows), that error is 1.5e-6.

tpu-mlir computes Erf in float32, with a division, at 150 times what an addition costs; and
1 + erf(-3), of which 16 bits keep a tenth, made the old form less exact than this one.
"""

import math
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder, take_over

LOGARITHM = (-0.6932318, 0.7972019, -0.3199584, 0.03481877, 0.004439835, 0.0002570602)
"""-p(u) as powers of -u, from 0 upwards."""


@dataclass(frozen=True)
class Gelu:
    """The value, and the nodes that make its GELU, the last of them first."""

    value: ir.Value
    nodes: tuple[ir.Node, ...]


class WriteOutGeluPass(Pass):
    """Replace x * (0.5 * (1 + Erf(x / sqrt 2))), whichever factor or summand comes first.

    Refuses when the shape is not static, and when a step on the way is also used otherwise.
    """

    name = "write-out-gelu"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every GELU."""
        for erf in [node for node in model.graph if node.op_type == "Erf"]:
            found = _gelu(erf)
            if found is None:
                continue
            obstacle = _obstacle(found)
            if obstacle is not None:
                self.refuse(erf, obstacle)
                continue
            self._rewrite(model.graph, found)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, found: Gelu) -> None:
        product = found.nodes[0]
        build = Builder(graph, before=product)
        take_over(product.outputs[0], _written_out(build, found.value))
        graph.remove(found.nodes, safe=True)
        self.fire()


def _written_out(build: Builder, value: ir.Value) -> ir.Value:
    """Add x/2 + |x|/2 - |x| s(|x|); the halves are exact.

    `Relu` and `Sub` would do, too; but tpu-mlir 1.30.2 puts neither into a group of operators that
    has a matrix product.
    """
    minus = build.elementwise("Mul", build.elementwise("Abs", value), build.number(-1.0))
    share = build.elementwise("Exp", _logarithm(build, minus))
    half = build.elementwise("Mul", value, build.number(0.5))
    other = build.elementwise("Mul", minus, build.number(-0.5))
    positive = build.elementwise("Add", half, other)
    return build.elementwise("Add", positive, build.elementwise("Mul", share, minus))


def _logarithm(build: Builder, minus: ir.Value) -> ir.Value:
    """Add the polynomial `LOGARITHM`, by Horner's scheme."""
    *lower, highest = map(build.number, LOGARITHM)
    total = build.elementwise("Mul", minus, highest)
    for coefficient in lower[:0:-1]:
        total = build.elementwise("Add", total, coefficient)
        total = build.elementwise("Mul", total, minus)
    return build.elementwise("Add", total, lower[0])


def _gelu(erf: ir.Node) -> Gelu | None:
    """The GELU that an error function is part of."""
    scaled = None if erf.inputs[0] is None else erf.inputs[0].producer()
    if scaled is None or scaled.op_type != "Div" or not _is_number(scaled.inputs[1], math.sqrt(2)):
        return None
    value = scaled.inputs[0]
    raised = _next(erf, "Add", 1.0)
    halved = None if raised is None else _next(raised, "Mul", 0.5)
    users = [] if halved is None else [node for node, _ in halved.outputs[0].uses()]
    if value is None or raised is None or halved is None or not users:
        return None
    product = users[0]
    if product.op_type != "Mul" or set(product.inputs) != {value, halved.outputs[0]}:
        return None
    return Gelu(value, (product, halved, raised, erf, scaled))


def _next(node: ir.Node, operator: str, number: float) -> ir.Node | None:
    """The first user of a node, when it is this operator with this number."""
    for user, _ in node.outputs[0].uses():
        others = [value for value in user.inputs if value is not node.outputs[0]]
        fits = user.op_type == operator and len(others) == 1
        return user if fits and _is_number(others[0], number) else None
    return None


def _is_number(value: ir.Value | None, number: float) -> bool:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    if constant is None or isinstance(constant, ir.ExternalTensor) or constant.size != 1:
        return False
    return math.isclose(float(constant.numpy().item()), number, rel_tol=1e-6)


def _obstacle(found: Gelu) -> str | None:
    if found.value.shape is None or not found.value.shape.is_static():
        return "its shape is not static"
    steps = [node.outputs[0] for node in found.nodes[1:]]
    if any(len(value.uses()) != 1 or value.is_graph_output() for value in steps):
        return "a step on the way is also used otherwise"
    return None
