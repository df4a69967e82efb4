"""softmax(s Q K^T) V over heads -> V_h softmax((s Q_h) K_h^T)^T, head by head, of matrices alone.

A back-end that multiplies matrices, A B^T, and knows neither batches nor transpositions, gets
attention in that form: queries and keys token by token, values channel by channel, so that the
heads' results lie one behind the other as the channels of a picture. Weights are cut into heads,
and the scale goes to the query's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import PassResult, common

from passes.base import Pass
from passes.building import Builder, take_over
from passes.matching import constant_number, extents, linear, produced_by
from passes.pictures import POINTWISE, as_picture, as_tokens, sides_of
from passes.weight_views import part_of

QUERY, KEY, VALUE = (0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)
"""How [1, tokens, heads, width] is transposed to be a factor."""


@dataclass(frozen=True)
class Projection:
    """What a factor is made of: tokens [1, tokens, channels] times a weight, plus a bias or not."""

    tokens: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    heads: int
    width: int
    scale: float


@dataclass(frozen=True)
class Attention:
    """A whole attention. `joined` is its heads' results side by side [1, tokens, channels].

    `mask` is a constant that is added to the scores, `scale` what these are multiplied by.
    """

    query: Projection
    key: Projection
    value: Projection
    joined: ir.Value
    mask: ir.Value | None
    scale: float


class MultiplyHeadsApartPass(Pass):
    """Write every attention of one batch as products of matrices, head by head.

    Refuses when the batch is not 1, when the mask is not the same for all heads, and when a factor
    is no projection of tokens by a weight.
    """

    name = "multiply-heads-apart"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every attention; what it was made of is removed."""
        for node in [node for node in model.graph if node.op_type == "Softmax"]:
            found = _attention(node)
            if isinstance(found, str):
                self.refuse(node, found)
            elif found is not None:
                self._rewrite(model.graph, found)
        if self.report.fired:
            common.RemoveUnusedNodesPass()(model)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, found: Attention) -> None:
        old = found.joined.producer()
        assert old is not None
        build = Builder(graph, before=old)
        asking = _matrix(build, found.query.tokens)
        asked = _matrix(build, found.key.tokens)
        places = extents(found.value.tokens)[1]
        picture = as_picture(build, found.value.tokens, (places, 1))
        count = extents(found.joined)[1]
        sides = sides_of(graph).get(count, (count, 1))
        heads = []
        for head in range(found.query.heads):
            shares = _shares(build, asking, asked, found, head)
            result = _product(build, _channels(build, picture, found.value, head), shares)
            heads.append(build.reshaped(result, [1, found.value.width, *sides]))
        joined = heads[0]
        if len(heads) > 1:
            channels = len(heads) * found.value.width
            axis = ir.AttrInt64("axis", 1)
            joined = build.add("Concat", heads, [1, channels, *sides], [axis])
        take_over(found.joined, as_tokens(build, joined))
        self.fire()


def _shares(
    build: Builder, asking: ir.Value, asked: ir.Value, found: Attention, head: int
) -> ir.Value:
    """The share of each token that is asked in the result of each that asks, a row each."""
    scale = found.query.scale * found.key.scale * found.scale
    queries = _tokens(build, asking, found.query, head, scale)
    keys = _tokens(build, asked, found.key, head, 1.0)
    scores = _product(build, queries, keys)
    rows, columns = extents(scores)
    if found.mask is not None:
        mask = build.reshaped(found.mask, [rows, columns])
        scores = build.add("Add", [scores, mask], [rows, columns])
    apart = build.reshaped(scores, [rows, columns, 1, 1])
    axis = ir.AttrInt64("axis", 1)
    shares = build.add("Softmax", [apart], [rows, columns, 1, 1], [axis])
    return build.reshaped(shares, [rows, columns])


def _tokens(
    build: Builder, matrix: ir.Value, projection: Projection, head: int, scale: float
) -> ir.Value:
    """One head's queries or keys, a row a token [tokens, width]."""
    product = _product(build, matrix, _scaled(build, _rows(build, projection, head), scale))
    if projection.bias is None:
        return product
    bias = _scaled(build, _bias(build, projection, head), scale)
    return build.add("Add", [product, bias], extents(product))


def _channels(build: Builder, picture: ir.Value, projection: Projection, head: int) -> ir.Value:
    """One head's values, a row a channel [width, tokens]: a convolution by 1x1."""
    rows = _rows(build, projection, head)
    kernel = build.reshaped(rows, [*extents(rows), 1, 1])
    bias = [] if projection.bias is None else [_bias(build, projection, head)]
    width, places = projection.width, extents(picture)[2]
    convolved = build.add("Conv", [picture, kernel, *bias], [1, width, places, 1], POINTWISE)
    return build.reshaped(convolved, [width, places])


def _rows(build: Builder, projection: Projection, head: int) -> ir.Value:
    """The part of the weight that gives one head's channels [width, inputs]."""
    width = projection.width
    part = part_of(build, projection.weight, 1, head * width, (head + 1) * width)
    order = ir.AttrInt64s("perm", [1, 0])
    return build.add("Transpose", [part], extents(part)[::-1], [order])


def _bias(build: Builder, projection: Projection, head: int) -> ir.Value:
    assert projection.bias is not None
    width = projection.width
    return part_of(build, projection.bias, 0, head * width, (head + 1) * width)


def _scaled(build: Builder, value: ir.Value, scale: float) -> ir.Value:
    return value if scale == 1 else build.add("Mul", [value, build.number(scale)], extents(value))


def _product(build: Builder, first: ir.Value, second: ir.Value) -> ir.Value:
    """Both factors have a row for every row and column of the product: A B^T."""
    shape = [extents(first)[0], extents(second)[0]]
    return build.add("Gemm", [first, second], shape, [ir.AttrInt64("transB", 1)])


def _matrix(build: Builder, tokens: ir.Value) -> ir.Value:
    return build.reshaped(tokens, extents(tokens)[1:])


def _attention(softmax: ir.Node) -> Attention | str | None:
    """The attention around a softmax; a reason why not, None where it is no attention's."""
    uses = list(softmax.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "MatMul":
        return None
    mixed = uses[0].node
    joined = _joined(mixed.outputs[0])
    product, mask, scale = _scores(softmax.inputs[0])
    obstacle = None
    if joined is None:
        obstacle = "its heads are not joined"
    elif extents(joined)[0] != 1:
        obstacle = f"a batch of {extents(joined)[0]} needs a product each"
    elif product is None:
        obstacle = "its scores are no product of queries and keys"
    elif mask is not None and extents(mask)[:-2] != (1,) * (len(extents(mask)) - 2):
        obstacle = "every head has a mask of its own"
    if obstacle is not None or joined is None or product is None:
        return obstacle
    factors = {
        "query": _projection(product.inputs[0], QUERY),
        "key": _projection(product.inputs[1], KEY),
        "value": _projection(mixed.inputs[1], VALUE),
    }
    query, key, value = factors.values()
    if query is None or key is None or value is None:
        lost = [name for name, factor in factors.items() if factor is None]
        return f"its {' and '.join(lost)} is no projection of tokens by a weight"
    return Attention(query, key, value, joined, mask, scale)


def _scores(value: ir.Value | None) -> tuple[ir.Node | None, ir.Value | None, float]:
    """The product that scores are, what is added to it and what it is multiplied by."""
    node, mask, scale = produced_by(value), None, 1.0
    if node is not None and node.op_type == "Add":
        mask = next((v for v in node.inputs if v is not None and v.is_initializer()), None)
        node = produced_by(next((v for v in node.inputs if v is not mask), None))
    if node is not None and node.op_type == "Mul":
        number = constant_number(node.inputs[1])
        scale, node = (number, produced_by(node.inputs[0])) if number is not None else (1.0, None)
    return (node if node is not None and node.op_type == "MatMul" else None), mask, scale


def _projection(value: ir.Value | None, order: Sequence[int]) -> Projection | None:
    """A factor [1, heads, ., .] traced back to tokens and a weight."""
    scale, node = 1.0, produced_by(value)
    if node is not None and node.op_type == "Mul":
        number = constant_number(node.inputs[1])
        scale, node = (number, produced_by(node.inputs[0])) if number is not None else (1.0, None)
    if node is None or node.op_type != "Transpose":
        return None
    apart = produced_by(node.inputs[0])
    if tuple(node.attributes["perm"].as_ints()) != tuple(order):
        return None
    if apart is None or apart.op_type != "Reshape" or len(extents(apart.outputs[0])) != 4:
        return None
    _, _, heads, width = extents(apart.outputs[0])
    found = linear(apart.inputs[0])
    if found is None or len(extents(found.tokens)) != 3:
        return None
    return Projection(found.tokens, found.weight, found.bias, heads, width, scale)


def _joined(mixed: ir.Value) -> ir.Value | None:
    """What heads [1, heads, tokens, width] are side by side."""
    if mixed.shape is None or len(mixed.shape) != 4:
        return None
    value = mixed
    for operator in ("Transpose", "Reshape"):
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type != operator:
            return None
        value = uses[0].node.outputs[0]
    _, heads, count, width = extents(mixed)
    return value if extents(value)[1:] == (count, heads * width) else None
