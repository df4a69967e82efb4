"""Sin(t * F) -> Sin(t * (F rounded to half precision) + t * (what is left of F)), and Cos.

A converter that keeps constants in float16 keeps the frequencies of a timestep's embedding so, and
at time 999 a phase is then wrong by up to 0.24. Both parts are exact in 11 bits. A random UNet of
SDXL, weights exact in float16, converted by MNN 3.6.1 with ``--fp16``: 43.7 dB, so 98.6 dB.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Array, Builder, take_over


class HalvePhasesExactlyPass(Pass):
    """Write frequencies that float16 does not hold as sums of two that it does.

    Frequencies are a constant that is no weight, and that a Sin's or Cos's input was multiplied by.
    """

    name = "halve-phases-exactly"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every product that is a phase."""
        for node in [node for node in model.graph if node.op_type == "Mul"]:
            users = {user.op_type for user, _ in node.outputs[0].uses()}
            frequencies = _frequencies(node)
            if frequencies is not None and users & {"Sin", "Cos"}:
                self._rewrite(model.graph, node, *frequencies)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, node: ir.Node, time: ir.Value, table: ir.Value) -> None:
        values, shape = _values(table), node.outputs[0].shape
        assert values is not None
        build = Builder(graph, before=node)
        coarse = _half(values)
        parts = [
            build.add("Mul", [time, build.constant(f"{table.name}.{name}", part)], shape)
            for name, part in (("coarse", coarse), ("fine", _half(values - coarse)))
        ]
        phases = build.add("Add", parts, shape)
        take_over(node.outputs[0], phases)
        graph.remove(node, safe=True)
        self.fire()


def _frequencies(product: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The value that is multiplied, and the constant that it is multiplied by."""
    for time, table in (product.inputs, product.inputs[::-1]):
        assert time is not None
        assert table is not None
        values = _values(table)
        if values is not None and (_half(values) != values).any():
            return time, table
    return None


def _values(value: ir.Value) -> Array | None:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor):
        return None
    values = tensor.numpy()
    return values if values.dtype == np.float32 else None


def _half(values: Array) -> Array:
    return np.asarray(values.astype(np.float16).astype(np.float32))
