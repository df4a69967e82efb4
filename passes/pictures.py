"""Tokens [1, tokens, channels] and the pictures [1, channels, height, width] that they are of."""

from collections.abc import Mapping

import onnx_ir as ir

from passes.building import Builder
from passes.matching import extents, produced_by

POINTWISE = (
    ir.AttrInt64s("kernel_shape", [1, 1]),
    ir.AttrInt64s("pads", [0, 0, 0, 0]),
    ir.AttrInt64s("strides", [1, 1]),
)
"""A convolution that looks at every pixel once."""

Sides = Mapping[int, tuple[int, int]]


def sides_of(graph: ir.Graph) -> Sides:
    """Number of tokens -> height and width, as far as pictures become tokens in a graph or back."""
    found: dict[int, tuple[int, int]] = {}
    for node in graph:
        if node.op_type != "Reshape" or node.inputs[0] is None or node.inputs[0].shape is None:
            continue
        for picture, tokens in (
            (node.inputs[0], node.outputs[0]),
            (node.outputs[0], node.inputs[0]),
        ):
            if picture.shape is None or tokens is None or tokens.shape is None:
                continue
            apart, flat = extents(picture), extents(tokens)
            if len(apart) == 4 and len(flat) == 3 and apart[3] == flat[2]:
                found[flat[1]] = apart[1], apart[2]
            elif len(apart) == 4 and len(flat) == 3 and apart[1] == flat[1]:
                found[flat[2]] = apart[2], apart[3]
    return found


def as_tokens(build: Builder, picture: ir.Value) -> ir.Value:
    """A picture's pixels as tokens."""
    _, channels, height, width = extents(picture)
    order = ir.AttrInt64s("perm", [0, 2, 3, 1])
    turned = build.add("Transpose", [picture], [1, height, width, channels], [order])
    return build.reshaped(turned, [1, height * width, channels])


def as_picture(build: Builder, tokens: ir.Value, sides: tuple[int, int]) -> ir.Value:
    """Tokens as a picture of these sides: what they were made from, where it is known."""
    behind = behind_tokens(tokens)
    _, count, channels = extents(tokens)
    shape = [1, channels, *sides]
    if behind is not None:
        return behind if list(extents(behind)) == shape else build.reshaped(behind, shape)
    order = ir.AttrInt64s("perm", [0, 2, 1])
    turned = build.add("Transpose", [tokens], [1, channels, count], [order])
    return build.reshaped(turned, shape)


def behind_tokens(tokens: ir.Value) -> ir.Value | None:
    """What tokens are a transposition of, channels first (a picture, or rows of pixels)."""
    node = produced_by(tokens)
    if node is None:
        return None
    if node.op_type == "Transpose" and _order(node) == (0, 2, 1):
        return node.inputs[0]
    turned = produced_by(node.inputs[0]) if node.op_type == "Reshape" else None
    if turned is None or turned.op_type != "Transpose" or _order(turned) != (0, 2, 3, 1):
        return None
    _, height, width, channels = extents(turned.outputs[0])
    return turned.inputs[0] if extents(tokens) == (1, height * width, channels) else None


def _order(node: ir.Node) -> tuple[int, ...]:
    order = node.attributes.get("perm")
    return () if order is None else tuple(order.as_ints())
