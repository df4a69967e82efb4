"""The table from which tpu-mlir takes the ranges of INT8: a tensor, its threshold, its extremes.

    # op_name threshold min max
    silu_4_Mul 3.1 -0.28 4.9

What an INT8 operation takes and gives needs a line. A lowest value of 0 makes it unsigned. Without
one for each of the others, of which it uses none, the compiler crashes.
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

ANY = (1.0, -1.0, 1.0)
"""The line of an operation whose range is of no use."""


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
    lines = ["# op_name threshold min max\n"]
    for operation in computing:
        try:
            numbers = table.line(operation.name) if operation.name in needed else ANY
        except KeyError:
            missing.append(operation.name)
        else:
            lines.append("{} {:.7g} {:.7g} {:.7g}\n".format(operation.name, *numbers))
    if missing:
        raise ToolchainError(f"no range is known of {', '.join(missing[:3])}, which INT8 needs")
    return "".join(lines)


class _Table:
    def __init__(
        self,
        graph: TopGraph,
        int8: Collection[str],
        wide: Collection[str],
        ranges: Mapping[str, Range],
    ) -> None:
        self._graph, self._int8, self._wide, self._ranges = graph, int8, wide, ranges

    def line(self, name: str) -> tuple[float, float, float]:
        """Threshold, lowest and highest value."""
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
