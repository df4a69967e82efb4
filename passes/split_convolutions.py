"""conv(x, W, b) -> concat(conv(x, W1, b1), ..., conv(x, Wn, bn)), over the output channels.

A chip that computes with one weight while it loads the next has to be given several. The weight of
a convolution of 1280 channels fills the local memory of a BM1684X, so that loading it and
multiplying by it take turns. In INT8 each takes as long as the other at 16x16: SD1.5's residual
block behind a concatenation takes 1.1 ms in parts instead of 1.8. In F16 it gains nothing.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder, take_over
from passes.weight_views import part_of

PART = 6 * 2**20
"""Elements of a part at most: in INT8 two of them lie in 16 MB beside what they multiply."""

LANES = 64
"""Channels are computed in so many lanes: a part that is no multiple of them wastes some."""


class SplitConvolutionsPass(Pass):
    """Write convolutions by large weights as several, each with a part of the output channels.

    Refuses where the channels are no multiple of the lanes or no division makes parts small
    enough.
    """

    name = "split-convolutions"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every large one."""
        for node in [node for node in model.graph if node.op_type == "Conv"]:
            weight = node.inputs[1]
            if weight is None or not isinstance(weight.const_value, ir.ExternalTensor):
                continue
            if weight.const_value.size <= PART or node.attributes.get_int("group", 1) > 1:
                continue
            parts = _parts(weight.const_value)
            if parts is None:
                self.refuse(node, f"no parts of {LANES} channels each are small enough")
            else:
                self._rewrite(model.graph, node, parts)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, node: ir.Node, parts: int) -> None:
        build, attributes = Builder(graph, before=node), tuple(node.attributes.values())
        data, *weights = (value for value in node.inputs if value is not None)
        (whole,) = node.outputs
        assert whole.shape is not None
        batch, channels, *extents = whole.shape.numpy()
        step = channels // parts
        pieces = [
            build.add(
                "Conv",
                [data, *(part_of(build, w, 0, start, start + step) for w in weights)],
                [batch, step, *extents],
                attributes,
            )
            for start in range(0, channels, step)
        ]
        axis = ir.AttrInt64("axis", 1)
        take_over(whole, build.add("Concat", pieces, [batch, channels, *extents], [axis]))
        graph.remove(node, safe=True)
        self.fire()


def _parts(weight: ir.TensorProtocol) -> int | None:
    """The fewest equal parts of whole lanes that are small enough; None where there are none."""
    lanes, rest = divmod(weight.shape.numpy()[0], LANES)
    if rest:
        return None
    return next(
        (n for n in range(2, lanes + 1) if lanes % n == 0 and weight.size <= n * PART), None
    )
