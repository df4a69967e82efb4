"""Whether a CLML graph is what TVM's CLML runtime reads: a malformed one crashes it.

Knows nothing of TVM: what a kernel must have is written down here from the runtime's own code
(`src/runtime/extra/contrib/clml/clml_runtime.cc` and `contrib/json/json_runtime.h`, TVM 0.27).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Shapes = Sequence[list[int]]

ROOT = {"nodes", "arg_nodes", "heads", "node_row_ptr"}
DTYPES = ("float32", "float16")
BINARY = ("add", "subtract", "multiply", "divide")
NUMBERS = {"strides": 2, "padding": 4, "dilation": 2}


class MalformedGraphError(ValueError):
    """A graph that the runtime would not read, or would read wrongly."""


def check(graph: Json, constants: Sequence[str]) -> None:
    """Raise MalformedGraphError unless `graph` (parsed) is right; `constants` are its names."""
    _expect(set(graph) == ROOT, f"keys {sorted(graph)}")
    nodes = graph["nodes"]
    bare = [i for i, node in enumerate(nodes) if node.get("op") in ("input", "const")]
    _expect(graph["arg_nodes"] == bare, "arg_nodes are not the inputs and constants")
    _expect(graph["node_row_ptr"] == list(range(len(nodes) + 1)), "node_row_ptr")
    named = [node["name"] for node in nodes if node.get("op") == "const"]
    _expect(named == list(constants), "its constants are not those that are handed over")
    _expect(len(set(named)) == len(named), "two constants of one name")
    for index, node in enumerate(nodes):
        _check_node(node, index, nodes)
    _expect(bool(graph["heads"]), "it has no output")
    for head in graph["heads"]:
        kernel = _place(head, len(nodes))
        _expect(nodes[kernel]["op"] == "kernel", f"output {kernel} is no kernel's")


def _check_node(node: Json, index: int, nodes: Sequence[Json]) -> None:
    where = f"node {index} ({node.get('name')})"
    _expect(node.get("op") in ("input", "const", "kernel"), f"{where}: op {node.get('op')!r}")
    attrs = node.get("attrs", {})
    shape, dtype = attrs.get("shape"), attrs.get("dtype")
    _expect(
        isinstance(shape, list) and len(shape) == 1 and 1 <= len(shape[0]) <= 4
        and all(isinstance(n, int) and n > 0 for n in shape[0]),
        f"{where}: shape {shape}",
    )  # fmt: skip
    _expect(isinstance(dtype, list) and len(dtype) == 1 and dtype[0] in DTYPES,
            f"{where}: dtype {dtype}")  # fmt: skip
    if node["op"] != "kernel":
        _expect(set(node) == {"op", "name", "attrs"}, f"{where}: keys {sorted(node)}")
        return
    inputs = node.get("inputs", [])
    _expect(attrs.get("num_inputs") == len(inputs), f"{where}: num_inputs")
    _expect(attrs.get("num_outputs") == 1, f"{where}: num_outputs")
    places = [_place(entry, index) for entry in inputs]
    given = [nodes[place]["attrs"] for place in places]
    _expect(all(a["dtype"] == dtype for a in given), f"{where}: its inputs are of other dtypes")
    _expect(node["name"] in KERNELS, f"{where}: CLML's runtime has no such kernel")
    reason = KERNELS[node["name"]](attrs, shape[0], [a["shape"][0] for a in given],
                  [nodes[place]["op"] for place in places])  # fmt: skip
    _expect(reason is None, f"{where}: {reason}")


def _place(entry: Any, before: int) -> int:
    """The node that an entry names, which has to come before another."""
    right = isinstance(entry, list) and len(entry) == 3 and entry[1:] == [0, 0]
    _expect(right and 0 <= entry[0] < before, f"entry {entry}")
    place: int = entry[0]
    return place


def _conv2d(attrs: Json, shape: list[int], given: Shapes, ops: Sequence[str]) -> str | None:
    for name, count in NUMBERS.items():
        numbers = attrs.get(name)
        if not isinstance(numbers, list) or [type(n) for n in numbers] != [int] * count:
            return f"{name} {numbers}"
    if attrs.get("groups") != 1:
        return f"{attrs.get('groups')} groups"
    if len(given) not in (2, 3) or any(op != "const" for op in ops[1:]):
        return "kernel and bias are constants"
    (batch, channels, *sides), kernel = given[0], given[1]
    top, left, bottom, right = attrs["padding"]
    padded = [sides[0] + top + bottom, sides[1] + left + right]
    wanted = [
        (side - step * (size - 1) - 1) // stride + 1
        for side, step, size, stride in zip(
            padded, attrs["dilation"], kernel[2:], attrs["strides"], strict=True
        )
    ]
    if batch != 1 or kernel[1] != channels or shape != [1, kernel[0], *wanted]:
        return f"{given[0]} by {kernel} is not {shape}"
    if len(given) == 3 and given[2] != [1, kernel[0], 1, 1]:
        return f"a bias {given[2]}"
    return None


def _dense(attrs: Json, shape: list[int], given: Shapes, ops: Sequence[str]) -> str | None:
    del attrs
    if len(given) not in (2, 3) or len(given[0]) != 2 or len(given[1]) != 2:
        return "two matrices and perhaps a bias are wanted"
    (rows, summed), (columns, of) = given[:2]
    if summed != of or shape != [rows, columns]:
        return f"{given[0]} by {given[1]} is not {shape}"
    if len(given) == 3 and (rows != 1 or given[2] != [1, columns] or ops[1:] != ["const"] * 2):
        return "a bias goes with one row and a constant weight"
    return None


def _softmax(attrs: Json, shape: list[int], given: Shapes, ops: Sequence[str]) -> str | None:
    del ops
    right = given == [shape] and len(shape) == 4 and attrs.get("axis") == 1
    return None if right else f"axis {attrs.get('axis')} of {given}"


def _reshape(attrs: Json, shape: list[int], given: Shapes, ops: Sequence[str]) -> str | None:
    del attrs, ops
    right = len(given) == 1 and math.prod(given[0]) == math.prod(shape)
    return None if right else f"{given} is not {shape}"


def _concatenate(attrs: Json, shape: list[int], given: Shapes, ops: Sequence[str]) -> str | None:
    del ops
    if attrs.get("axis") != 1 or any(len(g) != 4 for g in given):
        return f"axis {attrs.get('axis')} of {given}"
    same = {(g[0], *g[2:]) for g in given} == {(shape[0], *shape[2:])}
    return None if same and sum(g[1] for g in given) == shape[1] else f"{given} is not {shape}"


def _binary(attrs: Json, shape: list[int], given: Shapes, ops: Sequence[str]) -> str | None:
    del attrs, ops
    return None if given == [shape, shape] else f"{given} is not twice {shape}"


KERNELS: dict[str, Callable[[Json, list[int], Shapes, Sequence[str]], str | None]] = {
    "nn.conv2d": _conv2d,
    "nn.dense": _dense,
    "nn.softmax": _softmax,
    "reshape": _reshape,
    "concatenate": _concatenate,
    **dict.fromkeys(BINARY, _binary),
}


def _expect(right: object, what: str) -> None:
    if not right:
        raise MalformedGraphError(f"a CLML graph is malformed: {what}")
