"""Which value of a graph is the output of which torch module.

A template is traced from the modules, so in float32 and on the same inputs the output of every
module that computes anything is also a value of the graph, to rounding: values are matched by what
they hold. Where a graph is wrong nothing behind the fault would match; there a module's weights
tell, which keep the module's name: the last node that reads one of them gives its output.

Of the miniature every module that torch runs is matched by value (`validate/README.md`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.weights import Array
from passes.linked_weights import read_graph
from passes.weights import TRANSPOSED, weights_of
from targets.onnx_values import OnnxValues

SAME = 1e-4
"""Largest difference, of the peak, between a module's output and the value that it is: the two
sum in other orders, and differ by about 1e-6."""


@dataclass(frozen=True)
class Probe:
    """A module and its value. `kind` is the module's class, `elements` the size of its output."""

    module: str
    kind: str
    value: str
    elements: int
    by_weights: bool = False


@dataclass(frozen=True)
class Probes:
    """The places to look at, in the order of computation.

    Of the `modules` that torch ran, `matched` have an equal value; a value that several share
    (a block and its last layer) is looked at once, under the innermost of them.
    """

    places: Sequence[Probe]
    modules: int
    matched: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Probes":
        """Read what `dataclasses.asdict` gives."""
        return cls(**{**data, "places": [Probe(**place) for place in data["places"]]})

    @property
    def sentence(self) -> str:
        """What share of the network they cover."""
        by_weights = sum(probe.by_weights for probe in self.places)
        more = f", {by_weights} more found by their weights" if by_weights else ""
        return (
            f"{self.matched} of the {self.modules} modules that torch ran are a value of the "
            f"graph{more}; {len(self.places)} places looked at"
        )


def find_probes(
    graph: OnnxValues,
    inputs: Mapping[str, Array],
    modules: Mapping[str, Array],
    kinds: Mapping[str, str],
) -> Probes:
    """Match the outputs of torch `modules` on `inputs` with the values of a graph."""
    names = graph.values()
    values = graph.layers(inputs, names)
    candidates: dict[tuple[int, ...], list[tuple[str, Array]]] = {}
    for name in names:
        candidates.setdefault(values[name].shape, []).append((name, values[name]))
    known = _by_weights(read_graph(graph.graph))
    places: dict[str, Probe] = {}
    matched = 0
    for module, output in modules.items():
        value = _equal(output, candidates.get(output.shape, ()))
        matched += value is not None
        place = value or known.get(module)
        if place is None or place in places or place not in values:
            continue
        places[place] = Probe(module, kinds[module], place, output.size, by_weights=value is None)
    return Probes(list(places.values()), len(modules), matched)


def _equal(output: Array, candidates: Sequence[tuple[str, Array]]) -> str | None:
    """The first of the values, all of the output's shape, that holds the same."""
    peak = float(np.abs(output).max(initial=0.0))
    if not 0 < peak < np.inf:
        return None
    for name, value in candidates:
        if abs(float(value.flat[0]) - float(output.flat[0])) > SAME * peak:
            continue  # most of them
        if float(np.abs(value - output).max()) <= SAME * peak:
            return name
    return None


def _by_weights(model: ir.Model) -> dict[str, str]:
    """Module -> what the last node gives that reads one of its weights."""
    owners = {
        value: name.removesuffix(TRANSPOSED).rpartition(".")[0]
        for name, value in weights_of(model).items()
    }
    found = {}
    for node in model.graph:
        for value in node.inputs:
            if value in owners:
                found[owners[value]] = node.outputs[0].name or ""
    return found
