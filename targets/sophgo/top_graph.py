"""The graph as the vendor's optimiser leaves it ("top" MLIR): what is computed of what, by name.

    %4 = "top.Conv"(%1, %2, %3) {group = 1 : i64, ...} : (...) -> tensor<1x6x8x8xf32> loc(#loc4)
    #loc4 = loc("convolved")

An operation is called like its first result. That name is the one of the ONNX tensor, behind it
the operator (``convolved_Conv``); inputs and weights keep theirs.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

NOTHING = ("top.None", "top.Weight")
"""What computes nothing."""

MOVING = (
    *("top.Permute", "top.Reshape", "top.Squeeze", "top.Unsqueeze"),
    *("top.Upsample", "top.Slice", "top.Tile", "top.Pad"),
)
"""Operations whose results are values that they take; the compiler gives them the same range."""

_OPERATION = re.compile(
    r'^ *(?P<result>%\d+)\S* = "(?P<kind>top\.\w+)"\((?P<operands>.*?)\)'
    r".* loc\((?P<place>#loc\d*)\)$"
)
_PLACE = re.compile(
    r'^(?P<place>#loc\d*) = loc\((?:"(?P<name>[^"]*)"|fused(?:<.*?>)?\[(?P<first>#loc\d*).*\])\)$',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Operation:
    """One operation; `operands` are names, `line` is its number in the text."""

    kind: str
    operands: tuple[str, ...]
    line: int


TopGraph = Mapping[str, Operation]
"""Every operation by name, in order."""


def parse(text: str) -> dict[str, Operation]:
    """Read the operations of a module, the inputs and weights among them."""
    named: dict[str, str] = {}
    fused: dict[str, str] = {}
    for place in _PLACE.finditer(text):
        if place["first"]:
            fused[place["place"]] = place["first"]
        else:
            named[place["place"]] = place["name"]
    results: dict[str, str] = {}
    graph: dict[str, Operation] = {}
    for number, line in enumerate(text.splitlines()):
        if (found := _OPERATION.match(line)) is None:
            continue
        name = named.get(fused.get(found["place"], found["place"]), "")
        results[found["result"]] = name
        operands = tuple(
            results.get(word.partition("#")[0], "") for word in found["operands"].split(", ")
        )
        graph[name] = Operation(found["kind"], operands, number)
    return graph


def computing(graph: TopGraph) -> list[str]:
    """The names of the inputs and of all that is computed."""
    return [name for name, operation in graph.items() if operation.kind not in NOTHING]


def multiplies_a_weight(graph: TopGraph, operation: Operation) -> bool:
    """Whether it is a convolution or product of something computed with a weight."""
    if operation.kind not in ("top.Conv", "top.MatMul"):
        return False
    data, weight = (graph[name].kind for name in operation.operands[:2])
    return weight == "top.Weight" and data != "top.Weight"


def with_attribute(text: str, graph: TopGraph, names: Collection[str], attribute: str) -> str:
    """The module with an attribute more on some operations."""
    lines = text.splitlines(keepends=True)
    for name in names:
        line = graph[name].line
        lines[line] = lines[line].replace(" {", f" {{{attribute}, ", 1)
    return "".join(lines)
