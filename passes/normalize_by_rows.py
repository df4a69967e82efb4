"""(x - mean) / sqrt(var + eps) * gamma + beta, with mean and variance from those of picture rows.

tpu-mlir 1.30.2 reads a picture that is too large for a chip's local memory three times for a group
norm, and in BF16 as float32 besides: 140 of the 367 ms of SD1.5's VAE decoder. A row is small: what
is summed over rows can be done to slices of a picture, beside the convolution that makes them, and
scale and shift beside the convolution that follows. With r_i the mean of row i of a group

    var = mean_i( mean_j (x_ij - r_i)^2 + (r_i - mean)^2 ).

Rows are divided by their largest element before they are squared, and groups by theirs, so that no
square leaves the range of 16 bits. What is rounded is rounded row by row, and averages out. What
concerns a whole group is done in float32, by the operators that tpu-mlir computes in nothing less:
average pools, divisions, roots.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import Builder, extents_of, take_over
from passes.weight_views import reshaped
from passes.weights import is_weight

LARGE = 2**23
"""Numbers in a picture from which it pays: they fill a BM1684X's local memory, with 16 bits."""

HALF_MAX = 65504.0
"""The largest number of F16."""


@dataclass(frozen=True)
class GroupNorm:
    """Picture [batch, channels, height, width]; scale and shift [channels, 1, 1]; the nodes."""

    picture: ir.Value
    groups: int
    epsilon: float
    scale: ir.Value
    shift: ir.Value
    nodes: tuple[ir.Node, ...]


class NormalizeByRowsPass(Pass):
    """Write large group norms of pictures out.

    A group norm is a Reshape to [batch, groups, numbers], an InstanceNormalization that scales by
    ones and shifts by zeros, a Reshape back, a Mul and an Add, each by a weight.

    Refuses when a shape is not static, and when a step on the way is also used otherwise.
    """

    name = "normalize-by-rows"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every large one."""
        for node in [n for n in model.graph if n.op_type == "InstanceNormalization"]:
            found = _group_norm(node)
            if found is None:
                continue
            obstacle = _obstacle(found)
            if obstacle is not None:
                self.refuse(node, obstacle)
            elif math.prod(extents_of(found.picture)[1:]) >= LARGE:
                self._rewrite(model.graph, found)
        return self.result(model)

    def _rewrite(self, graph: ir.Graph, found: GroupNorm) -> None:
        last = found.nodes[-1]
        take_over(last.outputs[0], _normed(Builder(graph, before=last), found))
        graph.remove(reversed(found.nodes), safe=True)
        self.fire()


def _normed(build: Builder, norm: GroupNorm) -> ir.Value:
    """Add all that a norm takes; return the picture, normalised."""
    batch, channels, height, _ = extents_of(norm.picture)
    grouped = [norm.groups, channels // norm.groups]
    minus_mean, size, variance = (
        build.reshaped(value, [batch, *grouped, height]) for value in _rows(build, norm)
    )
    root = math.sqrt(norm.epsilon)
    minus_mean, rest, deviation = _groups(build, minus_mean, size, variance, root)
    scale, shift = (reshaped(build, w, [1, *grouped, 1]) for w in (norm.scale, norm.shift))
    scale = build.elementwise("Div", scale, deviation)
    # Any number near the mean will do where the rest is accounted for. This one depends on the
    # deviation: else tpu-mlir would subtract it before that is known, in a step of its own.
    centre = build.elementwise("Div", minus_mean, deviation)
    centre = build.elementwise("Mul", centre, deviation)
    lost = build.elementwise("Add", minus_mean, _times(build, centre, -1.0))
    rest = build.elementwise("Add", lost, rest)
    shift = build.elementwise("Add", shift, build.elementwise("Mul", scale, rest))
    ones = build.constant(f"sdconv_ones_{grouped[1]}", np.ones((1, 1, grouped[1], 1), np.float32))
    centre = build.elementwise("Mul", centre, ones)
    # An operator of 16 bits, so that the number of bits changes here, not between the next ones.
    scale = build.elementwise("Min", scale, build.number(HALF_MAX))
    value = norm.picture
    for operator, vector in (("Add", centre), ("Mul", scale), ("Add", shift)):
        by_channel = build.reshaped(vector, [batch, channels, 1, 1])
        value = build.elementwise(operator, value, by_channel)
    return value


def _rows(build: Builder, norm: GroupNorm) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Minus the mean of each row; a size that no element exceeds; the variance, in its square."""
    picture = norm.picture
    *extents, width = extents_of(picture)
    axis = build.integers([3])
    parts = _times(build, picture, -1 / width)
    minus_mean = build.add("ReduceSum", [parts, axis], [*extents, 1])
    centred = build.elementwise("Add", picture, minus_mean)
    largest = build.add("ReduceMax", [build.elementwise("Abs", centred), axis], [*extents, 1])
    size = build.elementwise("Add", largest, build.number(math.sqrt(norm.epsilon)))
    unit = build.elementwise("Mul", centred, build.elementwise("Reciprocal", size))
    squares = build.elementwise("Mul", unit, unit)
    variance = _times(build, build.add("ReduceSum", [squares, axis], [*extents, 1]), 1 / width)
    return minus_mean, size, variance


def _groups(
    build: Builder, minus_mean: ir.Value, size: ir.Value, variance: ir.Value, root: float
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Minus the mean of each group [batch, groups, 1, 1]; what that lacks; sqrt(var + eps).

    Those of its rows are [batch, groups, members, height]; `root` is sqrt(eps).
    """
    of_group = [*extents_of(size)[:2], 1, 1]
    mean = _averaged(build, minus_mean)
    apart = build.elementwise("Add", minus_mean, _times(build, mean, -1.0))
    reach = build.elementwise("Add", build.elementwise("Abs", apart), size)
    unit = build.add("ReduceMax", [reach, build.integers([2, 3])], of_group)
    size = build.elementwise("Div", size, unit)
    inside = build.elementwise("Mul", build.elementwise("Mul", variance, size), size)
    between = build.elementwise("Div", apart, unit)
    least = build.elementwise("Div", build.number(root), unit)
    total = build.elementwise("Add", inside, build.elementwise("Mul", between, between))
    total = build.elementwise("Add", total, build.elementwise("Mul", least, least))
    ratio = build.elementwise("Sqrt", _averaged(build, total))
    deviation = build.elementwise("Div", ratio, build.elementwise("Reciprocal", unit))
    return mean, _averaged(build, apart), deviation


def _averaged(build: Builder, value: ir.Value) -> ir.Value:
    """The mean over the last two axes."""
    extents = extents_of(value)
    window = [ir.AttrInt64s(name, extents[2:]) for name in ("kernel_shape", "strides")]
    return build.add("AveragePool", [value], [*extents[:2], 1, 1], window)


def _times(build: Builder, value: ir.Value, factor: float) -> ir.Value:
    return build.elementwise("Mul", value, build.number(factor))


def _group_norm(norm: ir.Node) -> GroupNorm | None:
    """The group norm of a picture that an instance norm is the middle of."""
    before = None if norm.inputs[0] is None else norm.inputs[0].producer()
    if before is None or before.op_type != "Reshape" or not _is_plain(norm):
        return None
    nodes, weights = [before, norm], []
    for operator in ("Reshape", "Mul", "Add"):
        follower = next((node for node, _ in nodes[-1].outputs[0].uses()), None)
        if follower is None or follower.op_type != operator:
            return None
        nodes.append(follower)
        weights.append(follower.inputs[1])
    picture, (_, scale, shift) = before.inputs[0], weights
    if picture is None or picture.shape is None or len(picture.shape) != 4:
        return None
    if scale is None or shift is None or not (is_weight(scale, 3) and is_weight(shift, 3)):
        return None
    groups, epsilon = norm.inputs[1], norm.attributes.get("epsilon")
    assert groups is not None
    number = epsilon.as_float() if epsilon is not None else 1e-5
    return GroupNorm(picture, extents_of(groups)[0], number, scale, shift, tuple(nodes))


def _is_plain(norm: ir.Node) -> bool:
    """Whether it scales by ones and shifts by zeros."""
    for value, number in zip(norm.inputs[1:], (1.0, 0.0), strict=True):
        constant = None if value is None else ir.convenience.get_const_tensor(value)
        if constant is None or isinstance(constant, ir.ExternalTensor):
            return False
        if not (constant.numpy() == number).all():
            return False
    return True


def _obstacle(found: GroupNorm) -> str | None:
    shape = found.picture.shape
    if shape is None or not shape.is_static():
        return "its shape is not static"
    steps = [node.outputs[0] for node in found.nodes[:-1]]
    if any(len(value.uses()) != 1 or value.is_graph_output() for value in steps):
        return "a step on the way is also used otherwise"
    return None
