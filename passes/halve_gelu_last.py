"""x (1/2 (1 + erf(x / sqrt 2))) -> (x (1 + erf(x / sqrt 2))) 1/2: as tpu-mlir knows a GELU.

As one operation it is a look-up in INT8. In F16 it makes no difference.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass


class HalveGeluLastPass(Pass):
    """Multiply by one half at the end.

    Refuses an error function of which something else is made.
    """

    name = "halve-gelu-last"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every GELU."""
        for erf in [node for node in model.graph if node.op_type == "Erf"]:
            found = _follow(erf)
            if found is None:
                self.refuse(erf, "it is no part of a GELU")
                continue
            value, above, halved, product = found
            half = next(v for v in halved.inputs if v is not above.outputs[0])
            for node, inputs in (
                (halved, (value, above.outputs[0])),
                (product, (halved.outputs[0], half)),
            ):
                for index, given in enumerate(inputs):
                    node.replace_input_with(index, given)
            halved.outputs[0].shape = value.shape
            self.fire()
        return self.result(model)


def _follow(erf: ir.Node) -> tuple[ir.Value, ir.Node, ir.Node, ir.Node] | None:
    """The value of a GELU, one plus its error function, half of that, and the product of both."""
    scaled = None if erf.inputs[0] is None else erf.inputs[0].producer()
    above = _user(erf, "Add")
    halved = None if above is None else _user(above, "Mul")
    product = None if halved is None else _user(halved, "Mul")
    if scaled is None or above is None or halved is None or product is None:
        return None
    value = scaled.inputs[0]
    if scaled.op_type != "Div" or value is None or set(product.inputs) != {value, *halved.outputs}:
        return None
    return value, above, halved, product


def _user(node: ir.Node, operator: str) -> ir.Node | None:
    """The one node of this operator that uses a node's output; None where it is used otherwise."""
    output = node.outputs[0]
    match [user for user, _ in output.uses()]:
        case [user] if user.op_type == operator and not output.is_graph_output():
            return user
    return None
