"""Conv(Transpose(Reshape(T)), W, b) -> Reshape(MatMul(W, Transpose(T)) + b): tokens to a picture.

A transformer's tokens [1, tokens, channels] are transposed to a picture and convolved by 1x1. For
tpu-mlir that transposition is a step of its own, at a tenth to a half of the memory's speed, where
a matrix product takes its second factor transposed for nothing.
"""

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder, take_over
from passes.weight_views import reshaped, with_ones

TO_PICTURE = (0, 3, 1, 2)


@dataclass(frozen=True)
class TokensToPicture:
    """Tokens, and the nodes that make a picture of them."""

    tokens: ir.Value
    reshape: ir.Node
    transpose: ir.Node
    convolution: ir.Node


class MultiplyTokensTransposedPass(Pass):
    """Write a 1x1 convolution of transposed tokens as a matrix product.

    Reshape [1, tokens, channels] to [1, height, width, channels], Transpose to channels first, Conv
    by a weight [outputs, channels, 1, 1] and a bias, with strides of 1 and without padding.

    Refuses when a shape is not static, when the batch is not 1, and when the picture of tokens is
    also used otherwise.
    """

    name = "multiply-tokens-transposed"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such convolution."""
        for node in [node for node in model.graph if node.op_type == "Conv"]:
            found = _tokens(node)
            if found is None:
                continue
            obstacle = _obstacle(found)
            if obstacle is not None:
                self.refuse(node, obstacle)
                continue
            self._rewrite(model.graph, found)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, found: TokensToPicture) -> None:
        node = found.convolution
        _, kernel, bias = node.inputs
        output = node.outputs[0]
        assert kernel is not None and bias is not None
        assert kernel.shape is not None and output.shape is not None
        assert found.tokens.shape is not None
        _, count, channels = found.tokens.shape.numpy()
        outputs = kernel.shape.numpy()[0]
        build = Builder(graph, before=node)
        order = ir.AttrInt64s("perm", [0, 2, 1])
        turned = build.add("Transpose", [found.tokens], [1, channels, count], [order])
        matrix = reshaped(build, kernel, [1, outputs, channels])
        product = build.add("MatMul", [matrix, turned], [1, outputs, count])
        picture = build.reshaped(product, output.shape.numpy())
        added = build.add("Add", [picture, with_ones(build, bias, [0, 2, 3])], output.shape.numpy())
        take_over(output, added)
        graph.remove([found.reshape, found.transpose, node], safe=True)
        self.fire()


def _tokens(node: ir.Node) -> TokensToPicture | None:
    """Whether a convolution is of tokens and as simple as a matrix product."""
    transpose = _producer(node, "Transpose")
    reshape = None if transpose is None else _producer(transpose, "Reshape")
    if transpose is None or reshape is None or len(node.inputs) != 3:
        return None
    order = transpose.attributes.get("perm")
    tokens, picture = reshape.inputs[0], reshape.outputs[0]
    if order is None or tuple(order.as_ints()) != TO_PICTURE:
        return None
    tensors = [None if v is None else v.const_value for v in node.inputs[1:]]
    if not all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        return None
    if tokens is None or tokens.shape is None or len(tokens.shape) != 3 or picture.shape is None:
        return None
    if tokens.shape[2] != picture.shape[3] or not _is_plain(node):
        return None
    return TokensToPicture(tokens, reshape, transpose, node)


def _is_plain(node: ir.Node) -> bool:
    """Whether it is a convolution of 1x1 that looks at every pixel once."""
    kernel = node.inputs[1]
    assert kernel is not None and kernel.shape is not None
    plain = {"strides": {1}, "dilations": {1}, "pads": {0}}
    given = {n: set(node.attributes[n].as_ints()) for n in plain if n in node.attributes}
    group = node.attributes.get("group")
    return (
        tuple(kernel.shape.numpy()[2:]) == (1, 1)
        and all(plain[name] == values for name, values in given.items())
        and (group is None or group.as_int() == 1)
    )


def _obstacle(found: TokensToPicture) -> str | None:
    output = found.convolution.outputs[0]
    shapes = (found.tokens.shape, output.shape)
    if any(shape is None or not shape.is_static() for shape in shapes):
        return "its shape is not static"
    assert found.tokens.shape is not None
    if found.tokens.shape[0] != 1:
        return f"a batch of {found.tokens.shape[0]} needs a product each"
    values = (found.reshape.outputs[0], found.transpose.outputs[0])
    if any(len(value.uses()) != 1 or value.is_graph_output() for value in values):
        return "the picture of tokens is also used otherwise"
    return None


def _producer(node: ir.Node, operator: str) -> ir.Node | None:
    producer = None if node.inputs[0] is None else node.inputs[0].producer()
    return producer if producer is not None and producer.op_type == operator else None
