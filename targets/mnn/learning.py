"""A model converted with placeholders -> where the converter put each weight, and in which form.

The .mnn says where the parameters of its operations lie, in which shape and encoding. Each is
looked for among the placeholders; they are random, so bytes that agree are that weight and no
other. What is found that way explains the weights file byte for byte. What is left must be
something that no weight can have an influence on, or the model cannot be bound.
"""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.weights import Array
from passes.weights import weights_of
from targets.mnn.encoding import Encoding
from targets.mnn.model import Model, Parameter, Stretch
from targets.mnn.weight_map import Constant, PlacedWeight, WeightMap, head

VERSION = 3
"""Raise it when models are learned otherwise than before: their skeletons are made again."""


class NotLearnedError(ValueError):
    """Some bytes are neither a known form of a weight nor constant."""


def learn(
    model: Model,
    path: Path,
    weights: Path,
    placeholders: Mapping[str, Array],
    constants: frozenset[str],
) -> WeightMap:
    """Explain `path` and `weights` by `placeholders` (float32, by weight).

    `constants` names what no weight has an influence on in the graph. Raises NotLearnedError.
    """
    files = {
        True: np.memmap(path, np.uint8, "r"),
        False: np.memmap(weights, np.uint8, "r") if weights.stat().st_size else np.empty(0, "u1"),
    }
    search = _Search(placeholders)
    placed, kept, unexplained = [], [], []
    for parameter in model.parameters:
        at = parameter.at
        content = files[at.inside][at.offset : at.end]
        found = None if parameter.role == "integers" else search.find(parameter, content)
        if found is not None:
            placed.append(found)
        elif not _is_constant(parameter, content, constants):
            unexplained.append(f"{parameter.operation} ({parameter.role})")
        elif not at.inside and content.any():
            kept.append(Constant(at.offset, content.tobytes()))
    if unexplained:
        raise NotLearnedError(
            f"{len(unexplained)} of {len(model.parameters)} parameters are in no known form: "
            f"{', '.join(unexplained[:5])}"
        )
    lost = placeholders.keys() - {weight.source for weight in placed}
    if lost:
        raise NotLearnedError(
            f"{len(lost)} weights are in the graph and not in the model: "
            f"{', '.join(sorted(lost)[:5])}"
        )
    _check_covered(model, weights.stat().st_size)
    return WeightMap(model.weights_nbytes, tuple(placed), tuple(kept))


def independent(model: ir.Model) -> frozenset[str]:
    """The values of a graph that are computed without any weight and without any input."""
    weights = weights_of(model)
    names = {name for name in model.graph.initializers if name not in weights}
    for node in model.graph:
        if all(value is None or value.name in names for value in node.inputs):
            names.update(str(value.name) for value in node.outputs)
    return frozenset(names)


class _Search:
    """Placeholders by the number of their elements and how they begin."""

    def __init__(self, placeholders: Mapping[str, Array]) -> None:
        self._placeholders = placeholders
        self._by_count: dict[int, list[str]] = {}
        for name, values in placeholders.items():
            self._by_count.setdefault(values.size, []).append(name)
        self._heads: dict[tuple[int, Encoding, int], dict[bytes, tuple[str, bool]]] = {}

    def find(self, parameter: Parameter, content: Array) -> PlacedWeight | None:
        """The weight that `content` is, whole."""
        encoding, count = parameter.encoding, prod(parameter.shape)
        outputs = parameter.shape[0] if len(parameter.shape) > 1 else 0
        begins = _begins(content, encoding, count)
        for name, turned in self._named(count, encoding, outputs, begins):
            at = parameter.at
            placed = PlacedWeight(at.inside, at.offset, name, parameter.role, turned, encoding)
            if np.array_equal(placed.encode(self._placeholders[name]), content):
                return placed
        return None

    def _named(
        self, count: int, encoding: Encoding, outputs: int, begins: bytes
    ) -> Iterator[tuple[str, bool]]:
        key = (count, encoding, outputs)
        if key not in self._heads:
            heads: dict[bytes, tuple[str, bool]] = {}
            for name in self._by_count.get(count, ()):
                values = self._placeholders[name]
                for turned in (False, True)[: values.ndim if values.ndim == 2 else 1]:
                    arranged = values.T if turned else values
                    if not outputs or len(arranged) == outputs:
                        heads[head(arranged, encoding)] = (name, turned)
            self._heads[key] = heads
        if begins in self._heads[key]:
            yield self._heads[key][begins]


def _begins(content: Array, encoding: Encoding, count: int) -> bytes:
    """What `head` gives for the weight that `content` is."""
    if not encoding.group:
        return content[: min(4, count) * encoding.bits // 8].tobytes()
    scales = len(content) - 8 * (count // encoding.group)
    return content[scales : scales + 8].tobytes()


def _is_constant(parameter: Parameter, content: Array, constants: frozenset[str]) -> bool:
    """Whether no weight can have an influence on it: the bias of none, or a value of the graph."""
    if parameter.role == "bias":
        return not content.any()
    if parameter.role != "constant":
        return parameter.role == "integers"
    return parameter.operation in constants or prod(parameter.shape) == 1


def _check_covered(model: Model, nbytes: int) -> None:
    """Raise NotLearnedError when bytes of the weights file belong to nothing."""
    mine = sorted((p.at for p in model.parameters if not p.at.inside), key=_offset)
    end = 0
    for at in mine:
        if at.offset > end:
            break
        end = max(end, at.end)
    if end != nbytes:
        raise NotLearnedError(f"from byte {end} on the weights file holds what nothing names")


def _offset(at: Stretch) -> int:
    return at.offset
