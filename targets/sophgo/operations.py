"""The operations of a network before it is lowered, as the compiler names them in its table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.sophgo import top_graph

_GROUPS = re.compile(r"num_groups = (\d+)")


def operations(mlir: Path) -> list[str]:
    """The names in the order of computation, read from a network in the dialect `top`."""
    graph = top_graph.parse(mlir.read_text())
    return [name for name in top_graph.computing(graph) if graph[name].kind != "top.Input"]


@dataclass(frozen=True)
class GroupNorm:
    """A norm over `groups` groups of the channels of what the operation `taken` computes."""

    name: str
    taken: str
    groups: int


def group_norms(mlir: Path) -> list[GroupNorm]:
    """Every group norm, read like `operations`."""
    text = mlir.read_text()
    lines = text.splitlines()
    return [
        GroupNorm(name, one.operands[0], int(_GROUPS.findall(lines[one.line])[0]))
        for name, one in top_graph.parse(text).items()
        if one.kind == "top.GroupNorm"
    ]


def write_table(kept: Mapping[str, str], path: Path) -> None:
    """Write a table as `model_deploy --quantize_table` reads it."""
    lines = [f"{name} {precision.upper()}\n" for name, precision in kept.items()]
    path.write_text("# op_name quantize_mode\n" + "".join(lines))
