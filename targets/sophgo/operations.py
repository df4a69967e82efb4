"""The operations of a network before it is lowered, as the compiler names them in its table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.sophgo import top_graph

NOT_COMPUTED = ("top.None", "top.Weight", "top.Input")
_GROUPS = re.compile(r'"top\.GroupNorm"\(.*num_groups = (\d+)')


def operations(mlir: Path) -> list[str]:
    """The names in the order of computation, read from a network in the dialect `top`."""
    graph = top_graph.parse(mlir.read_text())
    return [name for name, one in graph.items() if one.kind not in NOT_COMPUTED]


@dataclass(frozen=True)
class GroupNorm:
    """A norm over `groups` groups of the channels of what the operation `taken` computes."""

    name: str
    taken: str
    groups: int


def group_norms(mlir: Path) -> list[GroupNorm]:
    """Every group norm, read like `operations`."""
    text = mlir.read_text()
    norms = [
        (name, one.operands[0])
        for name, one in top_graph.parse(text).items()
        if one.kind == "top.GroupNorm"
    ]
    groups = map(int, _GROUPS.findall(text))
    return [GroupNorm(*norm, count) for norm, count in zip(norms, groups, strict=True)]


def write_table(kept: Mapping[str, str], path: Path) -> None:
    """Write a table as `model_deploy --quantize_table` reads it."""
    lines = [f"{name} {precision.upper()}\n" for name, precision in kept.items()]
    path.write_text("# op_name quantize_mode\n" + "".join(lines))
