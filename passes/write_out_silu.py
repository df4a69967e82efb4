"""x * Sigmoid(x) -> x/2 + |x|/2 - |x| v / (1 + v), v = exp(-|x|): SiLU without a division.

A division costs tpu-mlir 64 times what an addition does, and is done in float32, for which the
local memory of a chip is too small. Where v lies between 0 and 1, 1 / (1 + v) is a polynomial of
v - 1/2, too: of degree 6, found by minimising the largest relative error (Lawson's algorithm).
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.activations import falling, minus_size
from passes.base import Pass
from passes.building import Builder, take_over

RECIPROCAL = (
    0.66666667,
    -0.44452614,
    0.29635076,
    -0.19495284,
    0.12996857,
    -0.10756029,
    0.07170684,
)
"""1 / (1 + v) as powers of v - 1/2, from 0 upwards; relative error 9e-6, so that x Sigmoid(x) is
2e-6 wrong at most: a hundredth of what 11 bits leave of it."""


class WriteOutSiluPass(Pass):
    """Write SiLU in operators that chips compute fast, with 16 bits.

    A SiLU is a Mul of a value by its own Sigmoid, which nothing else reads.

    Refuses when the shape is not static.
    """

    name = "write-out-silu"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every SiLU."""
        for sigmoid in [node for node in model.graph if node.op_type == "Sigmoid"]:
            value = sigmoid.inputs[0]
            product = _product(sigmoid)
            if value is None or product is None:
                continue
            if value.shape is None or not value.shape.is_static():
                self.refuse(sigmoid, "its shape is not static")
                continue
            self._rewrite(model.graph, sigmoid, value, product)
        return self.result(model)

    def _rewrite(
        self, graph: ir.Graph, sigmoid: ir.Node, value: ir.Value, product: ir.Node
    ) -> None:
        build = Builder(graph, before=product)
        minus = minus_size(build, value)
        small = build.elementwise("Exp", minus)
        centred = build.elementwise("Add", small, build.number(-0.5))
        share = build.elementwise("Mul", build.polynomial(centred, RECIPROCAL), small)
        take_over(product.outputs[0], falling(build, value, minus, share))
        graph.remove([product, sigmoid], safe=True)
        self.fire()


def _product(sigmoid: ir.Node) -> ir.Node | None:
    """The multiplication of the value by its sigmoid."""
    output = sigmoid.outputs[0]
    users = [node for node, _ in output.uses()]
    if len(users) != 1 or users[0].op_type != "Mul" or output.is_graph_output():
        return None
    return users[0] if set(users[0].inputs) == {sigmoid.inputs[0], output} else None
