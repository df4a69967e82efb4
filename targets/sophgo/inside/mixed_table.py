"""Write the table that keeps all but convolutions and products with weights in half precision.

Runs in the toolchain's Python 3.10:  mixed_table.py MLIR TABLE MODE

The compiler reads an operation's name and its mode from each line; operations that are not listed
get the default.
"""

import re
import sys
from pathlib import Path

QUANTISED = ("top.Conv", "top.MatMul")

OPERATION = re.compile(r'^ *(%\d+)\S* = "(top\.\w+)"\((.*?)\).* loc\((#loc\d*)\)$', re.MULTILINE)
LOCATION = re.compile(
    r'^(#loc\d*) = loc\((?:"([^"]*)"|fused(?:<.*?>)?\[(#loc\d*).*\])\)$', re.MULTILINE
)


def named_operations(mlir):
    """The name, kind, result and operands of every operation, in the order of computation."""
    names, fused = {}, {}
    for place, name, first in LOCATION.findall(mlir):
        if first:
            fused[place] = first
        else:
            names[place] = name
    for result, kind, operands, place in OPERATION.findall(mlir):
        yield names.get(fused.get(place, place)), kind, result, operands.split(", ")


def kept_in_half(mlir):
    """The names of the operations whose second operand is no weight that they multiply by."""
    operations = list(named_operations(mlir))
    weights = {result for _, kind, result, _ in operations if kind == "top.Weight"}
    for name, kind, _, operands in operations:
        if kind in ("top.None", "top.Weight"):
            continue
        if kind not in QUANTISED or not weights.issuperset(operands[1:2]):
            yield name


if __name__ == "__main__":
    MLIR, TABLE, MODE = sys.argv[1:]
    lines = ["{} {}\n".format(name, MODE) for name in kept_in_half(Path(MLIR).read_text())]
    Path(TABLE).write_text("# op_name quantize_mode\n" + "".join(lines))
