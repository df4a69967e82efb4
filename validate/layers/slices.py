"""What a value is computed from since the last values that are known to be right."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from passes.weights import weights_of

SHOWN = 6
"""Elements of a constant that are shown."""


@dataclass
class Slice:
    """The nodes between, and what goes into them: graph inputs, weights, other constants.

    Constants are by name, with what they hold.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)


def slice_of(model: ir.Model, value: str, right: Collection[str]) -> Slice:
    """Go back from `value` to `right` values, inputs and constants."""
    weights = set(weights_of(model))
    inputs = {v.name for v in model.graph.inputs}
    found, seen = Slice(), set()
    by_name = {v.name: v for node in model.graph for v in node.outputs}
    waiting = [by_name[value]] if value in by_name else []
    while waiting:
        current = waiting.pop()
        name = current.name or ""
        if current in seen or (name in right and name != value):
            continue
        seen.add(current)
        node = current.producer()
        if name in inputs:
            found.inputs.append(name)
        elif name in weights:
            found.weights.append(name)
        elif current.const_value is not None:
            found.constants[name] = describe(current.const_value)
        elif node is not None:
            found.nodes.append(node)
            waiting += [v for v in node.inputs if v is not None]
    return found


def unused_inputs(graph: Path) -> list[str]:
    """The inputs of a graph file that no node reads."""
    return [value.name or "" for value in ir.load(graph).graph.inputs if not value.uses()]


def describe(tensor: ir.TensorProtocol) -> str:
    """What a constant holds: ``[1, 64, 320]``, or its beginning."""
    values = np.asarray(tensor.numpy()).ravel()
    shown = ", ".join(f"{value:g}" for value in values[:SHOWN])
    return f"[{shown}, ...] of {values.size}" if values.size > SHOWN else f"[{shown}]"
