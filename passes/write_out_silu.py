"""x * Sigmoid(x) -> x * Reciprocal(1 + Exp(-x)).

tpu-mlir 1.30.2 computes a SiLU in float32 throughout, in F16 too: twice the local memory, and what
fitted beside a group norm or a convolution no longer does. Written out, only the reciprocal is
float32. Beyond the range of F16, Exp is infinite and its reciprocal 0, as it should be.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder


class WriteOutSiluPass(Pass):
    """Write SiLU in operators that chips compute in half precision.

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
        assert value.shape is not None
        extents = value.shape.numpy()
        build = Builder(graph, before=product)
        negative = build.add("Mul", [value, build.number(-1.0)], extents)
        above = build.add("Exp", [negative], extents)
        whole = build.add("Add", [above, build.number(1.0)], extents)
        share = build.add("Reciprocal", [whole], extents)
        product.replace_input_with(0, value)
        product.replace_input_with(1, share)
        graph.remove(sigmoid, safe=True)
        self.fire()


def _product(sigmoid: ir.Node) -> ir.Node | None:
    """The multiplication of the value by its sigmoid."""
    output = sigmoid.outputs[0]
    users = [node for node, _ in output.uses()]
    if len(users) != 1 or users[0].op_type != "Mul" or output.is_graph_output():
        return None
    return users[0] if set(users[0].inputs) == {sigmoid.inputs[0], output} else None
