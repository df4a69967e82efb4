"""The operations of a network before it is lowered, as the compiler names them in its table."""

from collections.abc import Mapping
from pathlib import Path

from targets.sophgo import top_graph

NOT_COMPUTED = ("top.None", "top.Weight", "top.Input")


def operations(mlir: Path) -> list[str]:
    """The names in the order of computation, read from a network in the dialect `top`."""
    graph = top_graph.parse(mlir.read_text())
    return [name for name, one in graph.items() if one.kind not in NOT_COMPUTED]


def write_table(kept: Mapping[str, str], path: Path) -> None:
    """Write a table as `model_deploy --quantize_table` reads it."""
    lines = [f"{name} {precision.upper()}\n" for name, precision in kept.items()]
    path.write_text("# op_name quantize_mode\n" + "".join(lines))
