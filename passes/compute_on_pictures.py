"""f(tokens of P) W + b -> tokens of (Conv1x1(f(P), W^T) + b): a transformer that stays a picture.

A picture becomes tokens so that linear layers are matrix products, and a picture again behind them.
Where convolutions are what is fast, a linear layer is one by 1x1, its bias goes along, and what
works element by element between does so on pictures; nothing is transposed but for norms.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult, common

from passes.base import Pass
from passes.building import Builder, take_over
from passes.matching import Linear, constant_number, extents, linear, produced_by
from passes.pictures import POINTWISE, Sides, as_picture, as_tokens, behind_tokens, sides_of

ELEMENTWISE = ("Add", "Div", "Erf", "Gelu", "Mul", "Sigmoid", "Sub", "Tanh")


class ComputeOnPicturesPass(Pass):
    """Turn linear layers with a bias, and what works element by element behind, to pictures.

    1. A linear layer [1, tokens, channels] with a bias, or of a picture's tokens.
    2. An elementwise operator whose operands are tokens of pictures, or constant numbers.
    3. A split of a picture's tokens by channels.
    4. Tokens that become a picture again are the picture.

    Refuses linear layers of more than one batch.
    """

    name = "compute-on-pictures"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite from the inputs on; what only served the old form is removed."""
        sides = sides_of(model.graph)
        for node in list(model.graph):
            if node.graph is None:
                continue  # it went with another
            found = linear(node.outputs[0])
            if found is not None and not _is_only_product(node):
                self._turn_linear(model.graph, node, found, sides)
            elif node.op_type in ELEMENTWISE or node.op_type == "Split":
                self._turn_elementwise(model.graph, node)
            elif node.op_type == "Transpose":
                self._close(model.graph, node)
        if self.report.fired:
            common.RemoveUnusedNodesPass()(model)
        return self.result(model)

    def _turn_linear(self, graph: ir.Graph, node: ir.Node, found: Linear, sides: Sides) -> None:
        shape = extents(found.tokens)
        if len(shape) != 3 or (found.bias is None and behind_tokens(found.tokens) is None):
            return
        if shape[0] != 1:
            self.refuse(node, f"a batch of {shape[0]} needs a picture each")
            return
        build = Builder(graph, before=node)
        height, width = sides.get(shape[1], (shape[1], 1))
        picture = as_picture(build, found.tokens, (height, width))
        inputs, outputs = extents(found.weight)
        order = ir.AttrInt64s("perm", [1, 0])
        turned = build.add("Transpose", [found.weight], [outputs, inputs], [order])
        kernel = build.reshaped(turned, [outputs, inputs, 1, 1])
        bias = [] if found.bias is None else [found.bias]
        result = build.add("Conv", [picture, kernel, *bias], [1, outputs, height, width], POINTWISE)
        take_over(node.outputs[0], as_tokens(build, result))
        self.fire()

    def _turn_elementwise(self, graph: ir.Graph, node: ir.Node) -> None:
        operands, pictures = [], []
        for value in node.inputs:
            behind = None if value is None or _rank(value) != 3 else behind_tokens(value)
            if behind is None and constant_number(value) is None:
                return
            operands.append(value if behind is None else behind)
            pictures += [] if behind is None else [behind]
        if not pictures or len({extents(picture) for picture in pictures}) > 1:
            return
        if _rank(pictures[0]) != 4:
            return
        build = Builder(graph, before=node)
        if node.op_type == "Split":
            self._turn_split(build, node, pictures[0])
            return
        given = [value for value in operands if value is not None]
        result = build.add(
            node.op_type, given, extents(pictures[0]), tuple(node.attributes.values())
        )
        result.type = node.outputs[0].type
        take_over(node.outputs[0], as_tokens(build, result))
        self.fire()

    def _turn_split(self, build: Builder, node: ir.Node, picture: ir.Value) -> None:
        axis = node.attributes.get("axis")
        if axis is None or axis.as_int() % 3 != 2 or len(node.inputs) != 1:
            return
        _, _, height, width = extents(picture)
        start = 0
        for output in list(node.outputs):
            stop = start + extents(output)[2]
            ends = [build.integers([number]) for number in (start, stop, 1)]
            part = build.add("Slice", [picture, *ends], [1, stop - start, height, width])
            take_over(output, as_tokens(build, part))
            start = stop
        self.fire()

    def _close(self, graph: ir.Graph, node: ir.Node) -> None:
        """Tokens, apart by rows, with channels moved to the front: what they were made from."""
        reshape = produced_by(node.inputs[0])
        if reshape is None or reshape.op_type != "Reshape" or reshape.inputs[0] is None:
            return
        if tuple(node.attributes["perm"].as_ints()) != (0, 3, 1, 2):
            return
        if _rank(reshape.inputs[0]) != 3:
            return
        picture = behind_tokens(reshape.inputs[0])
        if picture is None or node.outputs[0].is_graph_output():
            return
        wanted = extents(node.outputs[0])
        if extents(picture) != wanted:
            picture = Builder(graph, before=node).reshaped(picture, wanted)
        ir.convenience.replace_all_uses_with(node.outputs[0], picture)
        self.fire()


def _is_only_product(node: ir.Node) -> bool:
    """Whether it is the product inside a linear layer with a bias, which is turned as a whole."""
    uses = list(node.outputs[0].uses())
    if node.op_type != "MatMul" or len(uses) != 1:
        return False
    outer = linear(uses[0].node.outputs[0])
    return outer is not None and outer.bias is not None


def _rank(value: ir.Value) -> int:
    return 0 if value.shape is None else len(value.shape)
