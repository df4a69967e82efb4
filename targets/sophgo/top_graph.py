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

_OPERATION = re.compile(
    r'^ *(?P<result>%\d+)\S* = "(?P<kind>top\.\w+)"\((?P<operands>.*?)\)'
    r"(?: \{(?P<attributes>.*?)\})? : .* loc\((?P<place>#loc\d*)\)$"
)
_PLACE = re.compile(
    r'^(?P<place>#loc\d*) = loc\((?:"(?P<name>[^"]*)"|fused(?:<.*?>)?\[(?P<first>#loc\d*).*\])\)$',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Operation:
    """One operation; `operands` are names, `line` is its number in the text."""

    name: str
    kind: str
    operands: tuple[str, ...]
    attributes: str
    shape: tuple[int, ...]
    line: int

    def number(self, attribute: str) -> float:
        """A numeric attribute; raises ValueError where it is missing."""
        found = re.search(rf"\b{attribute} = ([-+.\deE]+)", self.attributes)
        if found is None:
            raise ValueError(f"{self.name}: a {self.kind} without {attribute}")
        return float(found[1])


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
        extents = re.search(r"-> tensor<([\dx]*)x\w+> loc", line)
        shape = tuple(map(int, extents[1].split("x"))) if extents and extents[1] else ()
        attributes = found["attributes"] or ""
        graph[name] = Operation(name, found["kind"], operands, attributes, shape, number)
    return graph


def users_of(graph: TopGraph) -> dict[str, list[Operation]]:
    """Who takes the results of each operation."""
    users: dict[str, list[Operation]] = {name: [] for name in graph}
    for operation in graph.values():
        for operand in operation.operands:
            if operand in users:
                users[operand].append(operation)
    return users


def multiplies_a_weight(graph: TopGraph, operation: Operation) -> bool:
    """Whether it is a convolution or product of something computed with a weight."""
    if operation.kind not in ("top.Conv", "top.MatMul"):
        return False
    data, weight = (graph.get(name) for name in operation.operands[:2])
    return (
        weight is not None
        and weight.kind == "top.Weight"
        and data not in (None, weight)
        and (data is not None and data.kind != "top.Weight")
    )


def with_attribute(text: str, graph: TopGraph, names: Collection[str], attribute: str) -> str:
    """The module with an attribute more on some operations."""
    lines = text.splitlines(keepends=True)
    for name in names:
        line = graph[name].line
        lines[line] = lines[line].replace(" {", f" {{{attribute}, ", 1)
    return "".join(lines)
