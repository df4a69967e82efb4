"""int64 input -> int32 input: for consumers that know no int64.

Token ids and timesteps fit in 32 bits. Inside the graph the value is widened again, unless the
graph narrows it anyway.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.present_interface import retype_input


class NarrowInt64InputsPass(Pass):
    """Make every int64 graph input int32.

    1. Users that cast the input to int32 read it directly.
    2. All others read Cast(input, int64).
    """

    name = "narrow-int64-inputs"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every int64 input."""
        for value in model.graph.inputs:
            if value.dtype == ir.DataType.INT64:
                retype_input(model.graph, value, ir.DataType.INT32)
                self.fire()
        return self.result(model)
