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
from targets.sophgo.observing import Range
from targets.sophgo.top_graph import MOVING, TopGraph, computing

HEADROOM = 2.0
"""How much further than was seen results of 16 bits reach: it costs one bit of fifteen."""

SMALLEST = 1e-5
"""What the compiler takes for a threshold of zero."""

Line = tuple[float, float, float]
"""Threshold, lowest and highest value."""

ANY: Line = (1.0, -1.0, 1.0)
"""The line of an operation whose range is of no use."""


def calibration_table(
    graph: TopGraph, half: Collection[str], wide: Collection[str], ranges: Mapping[str, Range]
) -> str:
    """The lines of all operations.

    Those in `half` are not in INT8; results of those in `wide` get 16 bits. `ranges` are those of
    the ONNX graph's tensors. Raises ToolchainError where one is missing.
    """
    names = computing(graph)
    int8 = [name for name in names if name not in half]
    needed = dict.fromkeys(n for name in int8 for n in (*graph[name].operands, name))
    seen = {name: ranges.get(_tensor(name, ranges)) for name in names if name in needed}
    missing = [name for name, found in seen.items() if found is None]
    if missing:
        raise ToolchainError(f"no range is known of {', '.join(missing[:3])}, which INT8 needs")
    lines = {name: _line(found, name in wide) for name, found in seen.items() if found is not None}
    _agree(graph, lines)
    rows = ["{} {:.7g} {:.7g} {:.7g}\n".format(name, *lines.get(name, ANY)) for name in names]
    return "".join(["# op_name threshold min max\n", *rows])


def _tensor(name: str, known: Collection[str]) -> str:
    """The tensor that an operation was called after: ``linear_6`` of ``linear_6_Add``."""
    tensor = name
    while tensor and tensor not in known:
        tensor = tensor.rpartition("_")[0]
    return tensor


def _line(seen: Range, is_wide: bool) -> Line:
    if is_wide:
        return _symmetric(HEADROOM * seen.reach)
    return max(seen.threshold, SMALLEST), seen.low, seen.high


def _symmetric(reach: float) -> Line:
    reach = max(reach, SMALLEST)
    return reach, -reach, reach


def _agree(graph: TopGraph, lines: dict[str, Line]) -> None:
    """Add lines to those that matter, so that the compiler overwrites none of these."""
    for name, operation in reversed(list(graph.items())):
        if operation.kind in MOVING and name in lines:
            lines.setdefault(operation.operands[0], lines[name])
    for name, operation in graph.items():
        if operation.kind == "top.Concat" and name not in lines:
            parts = [lines[part] for part in operation.operands if part in lines]
            if parts:
                lines[name] = _symmetric(max(abs(end) for line in parts for end in line))
