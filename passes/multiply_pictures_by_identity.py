"""Reshape(Transpose(P)) -> identity @ Transpose(P): a picture to tokens, as a matrix product.

A matrix product takes its second factor transposed for nothing, where tpu-mlir 1.30.2 makes a
transposition a step of its own, at a tenth to a half of the memory's speed. The product costs 2
operations for each pixel and `ROWS`: a tenth of what the transposition did.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder, take_over

TO_TOKENS = (0, 2, 3, 1)

ROWS = 256
"""Of the identity, and tokens in one product. With half of them tpu-mlir took as long again to
group the many products; with twice as many, the chip took longer."""


@dataclass(frozen=True)
class PictureToTokens:
    """A picture, and the nodes that make tokens of it."""

    picture: ir.Value
    transpose: ir.Node
    reshape: ir.Node


class MultiplyPicturesByIdentityPass(Pass):
    """Write the transposition of a picture [1, channels, height, width] to tokens as products.

    It is a Transpose to [1, height, width, channels] and a Reshape to [1, tokens, channels].

    A constant would be packed once for each product, a megabyte for a layer. So the identity is
    the constant and zero times an input of one number, computed once.

    Refuses when a shape is not static, when the batch is not 1, when the transposed picture is also
    used otherwise, and when no input is one number.
    """

    name = "multiply-pictures-by-identity"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such transposition."""
        number = next((v for v in model.graph.inputs if _is_one_number(v)), None)
        identities: dict[int, ir.Value] = {}
        for node in [node for node in model.graph if node.op_type == "Transpose"]:
            found = _picture(node)
            if found is None:
                continue
            obstacle = _obstacle(found, number)
            if obstacle is not None:
                self.refuse(node, obstacle)
                continue
            assert number is not None
            self._rewrite(model.graph, found, number, identities)
        return self.result(model)

    def _rewrite(
        self,
        graph: ir.Graph,
        found: PictureToTokens,
        number: ir.Value,
        identities: dict[int, ir.Value],
    ) -> None:
        assert found.picture.shape is not None
        _, channels, height, width = found.picture.shape.numpy()
        count = height * width
        build = Builder(graph, before=found.reshape)
        rows = build.reshaped(found.picture, [1, channels, count])
        parts = []
        for start in range(0, count, ROWS):
            stop = min(start + ROWS, count)
            size = stop - start
            if size not in identities:
                identities[size] = _identity(graph, number, size)
            part = rows if size == count else build.slice(rows, 2, start, stop)
            order = ir.AttrInt64s("perm", [0, 2, 1])
            turned = build.add("Transpose", [part], [1, size, channels], [order])
            parts.append(build.add("MatMul", [identities[size], turned], [1, size, channels]))
        tokens = parts[0]
        if len(parts) > 1:
            extents = [1, count, channels]
            tokens = build.add("Concat", parts, extents, [ir.AttrInt64("axis", 1)])
        take_over(found.reshape.outputs[0], tokens)
        graph.remove([found.transpose, found.reshape], safe=True)
        self.fire()


def _identity(graph: ir.Graph, number: ir.Value, size: int) -> ir.Value:
    """An identity matrix [1, size, size] that no compiler takes for a constant."""
    build = Builder(graph, before=graph[0])
    if number.dtype != ir.DataType.FLOAT:
        to = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        number = build.add("Cast", [number], number.shape.numpy(), [to])  # type: ignore[union-attr]
        number.type = ir.TensorType(ir.DataType.FLOAT)
    zero = build.add("Mul", [number, build.number(0.0)], [1])
    ones = build.constant(f"sdconv_identity_{size}", np.eye(size, dtype=np.float32)[None])
    return build.add("Add", [ones, zero], [1, size, size])


def _picture(transpose: ir.Node) -> PictureToTokens | None:
    """Whether a picture becomes tokens here."""
    order = transpose.attributes.get("perm")
    picture, pixels = transpose.inputs[0], transpose.outputs[0]
    reshape = next((n for n, _ in pixels.uses() if n.op_type == "Reshape"), None)
    if picture is None or reshape is None or order is None or tuple(order.as_ints()) != TO_TOKENS:
        return None
    before, after = pixels.shape, reshape.outputs[0].shape
    if before is None or after is None or len(after) != 3 or before[3] != after[2]:
        return None
    return PictureToTokens(picture, transpose, reshape)


def _obstacle(found: PictureToTokens, number: ir.Value | None) -> str | None:
    shape = found.picture.shape
    if shape is None or not shape.is_static():
        return "its shape is not static"
    if shape[0] != 1:
        return f"a batch of {shape[0]} needs products of each"
    pixels = found.transpose.outputs[0]
    if len(pixels.uses()) != 1 or pixels.is_graph_output():
        return "the transposed picture is also used otherwise"
    return None if number is not None else "no input of the graph is one number"


def _is_one_number(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static() and tuple(value.shape) == (1,)
