"""The table from which tpu-mlir takes the ranges of INT8: a tensor, its threshold, its extremes.

    # op_name threshold min max
    silu_4_Mul 3.1 -0.28 4.9

What an INT8 operation takes and gives needs a line. A lowest value of 0 makes it unsigned. The
compiler has a line for each of the others, too, or crashes; it uses none of these but to overwrite:
what only moves values gets the range of what it moves, and the parts of a concatenation get that of
the whole (`calibration_process` of its `LoweringConfig`). So lines along such ways have to agree.
"""

from collections.abc import Collection, Mapping

from targets.base import ToolchainError
from targets.sophgo.mixed import VIEWS
from targets.sophgo.observing import Range
from targets.sophgo.top_graph import NOTHING, TopGraph

HEADROOM = 2.0
"""How much further than was seen results of 16 bits reach: it costs one bit of fifteen."""

SMALLEST = 1e-5
"""What the compiler takes for a threshold of zero."""

Line = tuple[float, float, float]
"""Threshold, lowest and highest value."""

ANY: Line = (1.0, -1.0, 1.0)
"""The line of an operation whose range is of no use."""

MOVING = (*VIEWS, "top.Upsample", "top.Slice", "top.Tile", "top.Pad")
"""Operations whose results the compiler gives the range of what they take."""


def calibration_table(
    graph: TopGraph, half: Collection[str], wide: Collection[str], ranges: Mapping[str, Range]
) -> str:
    """The lines of all operations; those in `half` are not in INT8.

    `ranges` are those of the ONNX graph's tensors. Raises ToolchainError where one is missing.
    """
    computing = [op for op in graph.values() if op.kind not in NOTHING]
    int8 = {op.name for op in computing} - {*half}
    needed = {name for name in int8 for name in (name, *graph[name].operands)}
    table = _Table(graph, int8, frozenset(wide), ranges)
    missing: list[str] = []
    lines: dict[str, Line] = {}
    for name in (operation.name for operation in computing if operation.name in needed):
        try:
            lines[name] = table.line(name)
        except KeyError:
            missing.append(name)
    if missing:
        raise ToolchainError(f"no range is known of {', '.join(missing[:3])}, which INT8 needs")
    _agree(graph, lines)
    rows = [
        "{} {:.7g} {:.7g} {:.7g}\n".format(op.name, *lines.get(op.name, ANY)) for op in computing
    ]
    return "".join(["# op_name threshold min max\n", *rows])


def _agree(graph: TopGraph, lines: dict[str, Line]) -> None:
    """Add lines to those that matter, so that the compiler overwrites none of these."""
    for operation in reversed(graph.values()):
        if operation.kind in MOVING and operation.name in lines:
            lines.setdefault(operation.operands[0], lines[operation.name])
    for operation in graph.values():
        if operation.kind == "top.Concat" and operation.name not in lines:
            parts = [lines[name] for name in operation.operands if name in lines]
            if parts:
                reach = max(max(abs(low), abs(high)) for _, low, high in parts)
                lines[operation.name] = (reach, -reach, reach)


class _Table:
    def __init__(
        self,
        graph: TopGraph,
        int8: Collection[str],
        wide: Collection[str],
        ranges: Mapping[str, Range],
    ) -> None:
        self._graph, self._int8, self._wide, self._ranges = graph, int8, wide, ranges

    def line(self, name: str) -> Line:
        """That of an operation in INT8, or of what one takes; raises KeyError."""
        if name not in self._wide:
            found = self._range(name)
            return max(found.threshold, SMALLEST), found.low, found.high
        reach = max(self._reach(name), SMALLEST)
        return reach, -reach, reach

    def _range(self, name: str) -> Range:
        """What 8 bits of an operation's results stand for; raises KeyError.

        What only moves or scales 8 bits, or looks up others for them, keeps their steps.
        """
        operation = self._graph[name]
        if operation.operands and (source := operation.operands[0]) in self._int8:
            if operation.kind in (*VIEWS, "top.GELU"):
                return self._range(source)
            if operation.kind == "top.MulConst":
                return self._range(source).scaled(operation.number("const_val"))
        return self._ranges[self._tensor(name)]

    def _reach(self, name: str) -> float:
        """How far 16 bits of a product have to reach."""
        left, right, *_ = self._graph[name].operands
        if self._graph[right].kind not in NOTHING:
            length = self._graph[left].shape[-1]
            return length * self._range(left).threshold * self._range(right).threshold
        return HEADROOM * self._ranges[self._tensor(name)].reach

    def _tensor(self, name: str) -> str:
        """The tensor that an operation was called after: ``linear_6`` of ``linear_6_Add``."""
        tensor = name
        while tensor and tensor not in self._ranges:
            tensor = tensor.rpartition("_")[0]
        if not tensor:
            raise KeyError(name)
        return tensor
