"""The operations of a network before it is lowered, as the compiler names them in its table."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.sophgo.inside.mixed_table import named_operations

NOT_COMPUTED = ("top.None", "top.Weight", "top.Input")
_GROUPS = re.compile(r'"top\.GroupNorm"\(.*num_groups = (\d+)')


def operations(mlir: Path) -> list[str]:
    """The names in the order of computation, read from a network in the dialect `top`."""
    found: Iterable[tuple[str, str, str, object]] = named_operations(mlir.read_text())
    return [name for name, kind, _, _ in found if kind not in NOT_COMPUTED]


@dataclass(frozen=True)
class GroupNorm:
    """A norm over `groups` groups of the channels of what the operation `taken` computes."""

    name: str
    taken: str
    groups: int


def group_norms(mlir: Path) -> list[GroupNorm]:
    """Every group norm, read like `operations`."""
    text = mlir.read_text()
    names: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for name, kind, result, operands in named_operations(text):
        names[result] = name
        if kind == "top.GroupNorm":
            found.append((name, names[operands[0]]))
    groups = map(int, _GROUPS.findall(text))
    return [GroupNorm(*norm, count) for norm, count in zip(found, groups, strict=True)]


def read_table(path: Path) -> dict[str, str]:
    """The precision of every operation that a table names, in capitals; see `write_table`."""
    lines = [line.partition("#")[0].split() for line in path.read_text().splitlines()]
    return {words[0]: words[1].upper() for words in lines if words}


def write_table(kept: Mapping[str, str], path: Path) -> None:
    """Write a table as `model_deploy --quantize_table` reads it."""
    lines = [f"{name} {precision.upper()}\n" for name, precision in kept.items()]
    path.write_text("# op_name quantize_mode\n" + "".join(lines))
