"""softmax(Q K) V -> Concat_i(softmax(Q_i K) V): attention over the queries piece by piece.

The scores of n tokens are n x n numbers, 1 GB in float32 for a picture of 1024x1024; of a piece of
the queries they are as many rows.
"""

import math

import onnx_ir as ir
from onnx_ir.passes import PassResult, common

from passes.base import Pass
from passes.building import Builder, take_over
from passes.matching import extents, produced_by

LARGEST = 1 << 26
"""Bytes of float32 scores that are computed at once: those of a picture of 512x512."""


class AttendByRowsPass(Pass):
    """Compute attention whose scores pass `largest` bytes in as few equal pieces as need be.

    Refuses scores that are no product, or whose shares another operator than one product uses.
    """

    name = "attend-by-rows"

    def __init__(self, largest: int = LARGEST) -> None:
        super().__init__()
        self._largest = largest

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every attention that is too large."""
        for node in [node for node in model.graph if node.op_type == "Softmax"]:
            shape = extents(node.outputs[0])
            pieces = _pieces(shape[-2], 4 * math.prod(shape), self._largest)
            if pieces == 1:
                continue
            product, uses = produced_by(node.inputs[0]), list(node.outputs[0].uses())
            if product is None or product.op_type != "MatMul":
                self.refuse(node, "its scores are no product")
            elif len(uses) != 1 or uses[0].node.op_type != "MatMul" or uses[0].idx != 0:
                self.refuse(node, "its shares are used otherwise than by one product")
            else:
                self._rewrite(model.graph, product, node, uses[0].node, pieces)
        if self.report.fired:
            common.RemoveUnusedNodesPass()(model)
        return self.result(model)

    def _rewrite(
        self, graph: ir.Graph, product: ir.Node, softmax: ir.Node, mixed: ir.Node, pieces: int
    ) -> None:
        queries, keys = product.inputs
        values = mixed.inputs[1]
        assert queries is not None and keys is not None and values is not None
        build = Builder(graph, before=mixed)
        rows, axis = extents(queries)[-2] // pieces, len(extents(queries)) - 2
        parts = []
        for start in range(0, pieces * rows, rows):
            ends = [build.integers([number]) for number in (start, start + rows, axis)]
            part = build.add("Slice", [queries, *ends], _with(queries, rows))
            scores = build.add("MatMul", [part, keys], _with(product.outputs[0], rows))
            shares = build.add(
                "Softmax", [scores], extents(scores), tuple(softmax.attributes.values())
            )
            parts.append(build.add("MatMul", [shares, values], _with(mixed.outputs[0], rows)))
        along = ir.AttrInt64("axis", axis)
        take_over(mixed.outputs[0], build.add("Concat", parts, extents(mixed.outputs[0]), [along]))
        self.fire()


def _pieces(rows: int, nbytes: int, largest: int) -> int:
    """The least number of equal pieces of so many rows, none of which passes `largest` bytes."""
    least = -(-nbytes // largest)
    return next((n for n in range(max(1, least), rows) if rows % n == 0), rows)


def _with(value: ir.Value, rows: int) -> tuple[int, ...]:
    """A value's shape with so many rows."""
    *outer, _, columns = extents(value)
    return (*outer, rows, columns)
