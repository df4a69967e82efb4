"""ArgMax(ids) -> ArgMax(ids == end): the pooled output stays at the end of the prompt.

CLIP takes its pooled output at the token that ends the prompt, and exports find it as the highest
id of the row. Ids that were added behind the vocabulary are higher: with them the end itself has to
be looked for. Where a row has several ends, the first counts, before and after.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass


class PoolAtEndTokenPass(Pass):
    """Make every ArgMax over int32 ids look for the id `end`: Equal, Cast, ArgMax.

    An ArgMax over anything else (floats, or a comparison that stands there already) is no search
    for the highest id, and is left alone.
    """

    name = "pool-at-end-token"

    def __init__(self, end: int) -> None:
        super().__init__()
        self._end = end

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every place."""
        for node in [node for node in model.graph if node.op_type == "ArgMax"]:
            ids = node.inputs[0]
            if ids is not None and ids.dtype == ir.DataType.INT32 and not _compared(ids):
                self._rewrite(model.graph, node, ids)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, search: ir.Node, ids: ir.Value) -> None:
        end = _constant(graph, self._end)
        is_end, number = (
            ir.Value(shape=ids.shape, type=ir.TensorType(dtype))
            for dtype in (ir.DataType.BOOL, ir.DataType.INT32)
        )
        to_int32 = [ir.AttrInt64("to", ir.DataType.INT32)]
        graph.insert_before(search, ir.Node("", "Equal", [ids, end], outputs=[is_end]))
        graph.insert_before(search, ir.Node("", "Cast", [is_end], to_int32, outputs=[number]))
        search.replace_input_with(0, number)
        self.fire()


def _constant(graph: ir.Graph, value: int) -> ir.Value:
    """Return a constant int32 scalar; one for all that ask for the same."""
    name = f"sdconv_int32_{value}"
    if name not in graph.initializers:
        tensor = ir.tensor(value, dtype=ir.DataType.INT32)
        kind = ir.TensorType(tensor.dtype)
        graph.register_initializer(
            ir.Value(name=name, shape=ir.Shape([]), type=kind, const_value=tensor)
        )
    return graph.initializers[name]


def _compared(value: ir.Value) -> bool:
    """Whether the value is a comparison's outcome as a number."""
    cast = value.producer()
    source = None if cast is None or cast.op_type != "Cast" else cast.inputs[0]
    return source is not None and source.dtype == ir.DataType.BOOL
