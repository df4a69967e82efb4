"""f(X W + b) V -> f(X W1 + b1) V1 + ... + f(X W4 + b4) V4, over quarters of the hidden channels.

A chip that computes with one weight while it loads the next has to be given several. tpu-mlir
makes one group of operators of the four quarters of SD1.5's feed-forward at 16x16 tokens, where the
39 MB of weights kept the compute engine waiting: 2.0 ms for that transformer instead of 2.7.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder, extents_of, take_over
from passes.weight_views import part_of
from passes.weights import is_weight

PARTS = 4

LARGE = 640 * 5120
"""Elements of W from which it pays: SD1.5's at 32x32 tokens. Smaller weights cost little time."""

ELEMENTWISE = ("Add", "Div", "Erf", "Gelu", "Mul")


@dataclass(frozen=True)
class FeedForward:
    """A feed-forward layer: two halves of X W + b, what is made of them, its product with V.

    `between` are the elementwise nodes in order, `bias` the addition to the product, if any.
    """

    up: ir.Node
    added: ir.Node
    split: ir.Node
    between: tuple[ir.Node, ...]
    down: ir.Node
    bias: ir.Node | None


class SplitFeedForwardPass(Pass):
    """Write large gated feed-forward layers as a sum over parts of their hidden channels.

    A gated one (GEGLU) is Split(MatMul(X, W) + b) into two halves, operators that work element
    by element on them, with constant numbers beside, and a MatMul by V. W, b and V are weights.

    Refuses when the halves are used otherwise, or do not come apart evenly.
    """

    name = "split-feed-forward"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every large one."""
        for split in [node for node in model.graph if node.op_type == "Split"]:
            source = _source(split)
            if source is None:
                continue
            found = _follow(split, *source)
            if isinstance(found, str):
                self.refuse(split, found)
            else:
                self._rewrite(model.graph, found)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, layer: FeedForward) -> None:
        build = Builder(graph, before=layer.down)
        last = layer.down if layer.bias is None else layer.bias
        weight = layer.down.inputs[1]
        assert weight is not None and last.outputs[0].shape is not None
        hidden, extents = extents_of(weight)[0], list(last.outputs[0].shape.numpy())
        total: ir.Value | None = None
        for part in range(PARTS):
            start, stop = part * hidden // PARTS, (part + 1) * hidden // PARTS
            rows = part_of(build, weight, 0, start, stop)
            product = build.add("MatMul", [_hidden(build, layer, start, stop), rows], extents)
            if total is not None:
                total = build.add("Add", [total, product], extents)
            elif layer.bias is not None:
                total = build.add("Add", [product, _other(layer.bias, layer.down)], extents)
            else:
                total = product
        assert total is not None
        take_over(last.outputs[0], total)
        gone = [layer.up, layer.added, layer.split, *layer.between, layer.down]
        for node in reversed([*gone, layer.bias] if layer.bias is not None else gone):
            graph.remove(node, safe=True)
        self.fire()


def _source(split: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The MatMul by a large weight and the addition whose sum is cut into halves."""
    added = None if split.inputs[0] is None else split.inputs[0].producer()
    if added is None or added.op_type != "Add" or len(split.outputs) != 2:
        return None
    up = next((p for v in added.inputs if v is not None and (p := v.producer())), None)
    if up is None or up.op_type != "MatMul" or not is_weight(up.inputs[1], rank=2):
        return None
    weight = up.inputs[1]
    assert weight is not None
    rows, columns = extents_of(weight)
    if rows * columns < LARGE or not is_weight(_other(added, up), rank=1):
        return None
    return up, added


def _follow(split: ir.Node, up: ir.Node, added: ir.Node) -> FeedForward | str:
    """What becomes of the halves; or why they cannot be cut further."""
    graph = split.graph
    assert graph is not None
    halves = set(split.outputs)
    between: list[ir.Node] = []
    down: ir.Node | None = None
    for node in graph:
        if not halves.intersection(v for v in node.inputs if v is not None):
            continue
        if node.op_type in ELEMENTWISE and all(v in halves or _is_number(v) for v in node.inputs):
            between.append(node)
            halves.update(node.outputs)
        elif node.op_type == "MatMul" and is_weight(node.inputs[1], rank=2) and down is None:
            down = node
        else:
            return f"{node.name or node.op_type} uses the halves otherwise"
    values = [up.outputs[0], added.outputs[0], *halves]
    if down is None or any(value.is_graph_output() for value in values):
        return "an output of the graph needs the whole"
    if any(len(value.uses()) != 1 for value in values[:2]) or len(down.inputs) != 2:
        return "the product is also used whole"
    weight, wide = down.inputs[1], up.inputs[1]
    assert weight is not None and wide is not None
    hidden = extents_of(weight)[0]
    if 2 * hidden != extents_of(wide)[1] or hidden % PARTS:
        return f"{hidden} hidden channels do not come apart evenly"
    return FeedForward(up, added, split, tuple(between), down, _bias(down))


def _hidden(build: Builder, layer: FeedForward, start: int, stop: int) -> ir.Value:
    """The hidden channels from `start` to `stop`."""
    data, weight = layer.up.inputs
    bias = _other(layer.added, layer.up)
    assert data is not None and weight is not None
    columns = extents_of(weight)[1]
    mapped: dict[ir.Value, ir.Value] = {}
    for half, output in enumerate(layer.split.outputs):
        at = half * columns // 2
        assert output.shape is not None
        extents = [*output.shape.numpy()[:-1], stop - start]
        cut = part_of(build, weight, 1, at + start, at + stop)
        product = build.add("MatMul", [data, cut], extents)
        added = part_of(build, bias, 0, at + start, at + stop)
        mapped[output] = build.add("Add", [product, added], extents)
    for node in layer.between:
        mapped[node.outputs[0]] = _copied(build, node, mapped, stop - start)
    hidden = layer.down.inputs[0]
    assert hidden is not None
    return mapped[hidden]


def _copied(
    build: Builder, node: ir.Node, mapped: Mapping[ir.Value, ir.Value], channels: int
) -> ir.Value:
    inputs = [mapped.get(value, value) for value in node.inputs if value is not None]
    shape = node.outputs[0].shape
    assert shape is not None
    first = next(value for value in inputs if value in mapped.values())
    result = build.add(
        node.op_type, inputs, [*shape.numpy()[:-1], channels], tuple(node.attributes.values())
    )
    result.type = first.type
    return result


def _bias(down: ir.Node) -> ir.Node | None:
    """The addition of a bias right behind a product."""
    users: Iterable[ir.Node] = [node for node, _ in down.outputs[0].uses()]
    match list(users):
        case [ir.Node(op_type="Add") as node] if is_weight(_other(node, down), rank=1):
            return node if not down.outputs[0].is_graph_output() else None
    return None


def _other(node: ir.Node, one: ir.Node) -> ir.Value:
    """The input of a two-handed node that does not come from `one`."""
    first, second = node.inputs
    assert first is not None and second is not None
    return second if first.producer() is one else first


def _is_number(value: ir.Value | None) -> bool:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    if constant is None or isinstance(constant, ir.ExternalTensor):
        return False
    return bool(constant.size == 1)
