"""A network compiled with placeholders -> where the compiler put each weight, and in which form.

The compiler's last MLIR names the tensors of the weight region, with their addresses. Each is
looked for among the placeholders: under every layout and, where a name says that a weight was cut,
among its parts. Placeholders are random, so bytes that agree are that weight and no other. What is
found that way explains the region byte for byte; what is left must be something that no weight can
have an influence on, or the network cannot be bound.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from converter.weights import Array
from targets.sophgo.packing.layouts import (
    CODES,
    DTYPES,
    LAYOUTS,
    UNITS,
    Layout,
    Quantised,
)
from targets.sophgo.packing.weight_map import Constant, PackedWeight, Part, WeightMap

_WEIGHT = re.compile(
    r'"top\.Weight"\(\).*?-> tensor<([\dx]+)x([a-z]\w*), (\d+) : i64> loc\((#loc\d*)\)'
)
_LOCATION = re.compile(r'^(#loc\d*) = loc\("([^"]*)"\)$', re.MULTILINE)
_WEIGHTS = re.compile(r'"top\.Weight"\(\)')

VERSION = 2
"""Raise it when networks are learned otherwise than before: their skeletons are made again."""

TABLES = re.compile(r"[su]?i(16|32)")
"""Element types that only tables of indices have at the precisions that are bound."""


FEWEST = 8
"""Elements that must agree before a value all over is no accident."""


class NotLearnedError(ValueError):
    """Some tensors of the region are neither a known form of a weight nor constant."""


@dataclass(frozen=True)
class RegionTensor:
    """A tensor of the weight region as the compiler names it. `offset` is in bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def end(self) -> int:
        """Where its elements end, of a dtype of `DTYPES`."""
        return self.offset + prod(self.shape) * DTYPES[self.dtype].itemsize


def region_tensors(mlir: str, address: int) -> list[RegionTensor]:
    """Read the weights of a final MLIR; `address` is the region's own. Raises NotLearnedError."""
    names = dict(_LOCATION.findall(mlir))
    found = [
        RegionTensor(names[place], tuple(map(int, shape.split("x"))), dtype, int(at) - address)
        for shape, dtype, at, place in _WEIGHT.findall(mlir)
        if place in names
    ]
    missed = len(_WEIGHTS.findall(mlir)) - len(found)
    if missed:
        raise NotLearnedError(f"{missed} weights of the compiler's MLIR have no name or address")
    return sorted(found, key=lambda tensor: tensor.offset)


def learn(
    region: Array,
    tensors: Sequence[RegionTensor],
    placeholders: Mapping[str, Array],
    constants: Sequence[str],
) -> WeightMap:
    """Explain `region` (uint8) by `placeholders` (float32, by weight).

    `constants` names the graph's tensors that depend on no weight. Raises NotLearnedError naming
    the tensors that stay unexplained.
    """
    search = _Search(placeholders, is_quantised=any(t.dtype == CODES for t in tensors))
    weights, unexplained = [], []
    ends: dict[int, int] = {}
    for tensor in tensors:
        found = search.find(tensor, region)
        if found is not None:
            weights.append(found)
            ends[tensor.offset] = tensor.end
        elif not _is_constant(tensor, constants) and not _is_uniform(tensor, region):
            unexplained.append(tensor.name)
    if unexplained:
        raise NotLearnedError(
            f"{len(unexplained)} of {len(tensors)} packed weights are in no known form: "
            f"{', '.join(unexplained[:5])}"
        )
    return WeightMap(len(region), tuple(weights), tuple(_constants(region, ends, tensors)))


class _Search:
    """Placeholders by what they can be found under."""

    def __init__(self, placeholders: Mapping[str, Array], *, is_quantised: bool) -> None:
        self._placeholders = placeholders
        self._is_quantised = is_quantised
        self._heads: dict[PackedWeight, bytes] = {}
        self._by_count: dict[int, list[tuple[str, Layout]]] = {}
        for name, values in placeholders.items():
            for layout in LAYOUTS.values():
                if layout.takes(values.shape):
                    count = layout.count(values.shape)
                    self._by_count.setdefault(count, []).append((name, layout))

    def find(self, tensor: RegionTensor, region: Array) -> PackedWeight | None:
        """The weight that lies at `tensor`, whole or in part."""
        if tensor.dtype not in DTYPES:
            return None
        packed = region[tensor.offset : tensor.end]
        named = sorted(filter(tensor.name.startswith, self._placeholders), key=len, reverse=True)
        whole = self._by_count.get(prod(tensor.shape), [])
        for name, layout in sorted(whole, key=lambda one: one[0] not in named):
            candidate = PackedWeight(tensor.offset, name, (), layout.name, tensor.dtype)
            if self._is(candidate, packed):
                return candidate
        for name in named:
            for part, cut in _parts(self._placeholders[name], tensor, packed):
                candidate = PackedWeight(tensor.offset, name, part, cut, tensor.dtype)
                if self._is(candidate, packed):
                    return candidate
        cut_off = self._quantised_parts(tensor, packed) if self._is_quantised else ()
        return next((part for part in cut_off if self._is(part, packed)), None)

    def _quantised_parts(self, tensor: RegionTensor, packed: Array) -> Iterator[PackedWeight]:
        """Outputs of a matrix that may have been cut off before they were quantised.

        Their names are of operations, so every matrix has to be looked at; one output tells.
        """
        for name, layout, width in self._wider(tensor):
            values = self._placeholders[name]
            whole = PackedWeight(tensor.offset, name, (), layout.name, tensor.dtype)
            for start in range(0, layout.sides(values.shape)[1] - width + 1, min(UNITS)):
                first = replace(whole, part=layout.outputs(values.shape, start, start + 1))
                if self._begins(first, values, packed):
                    yield replace(whole, part=layout.outputs(values.shape, start, start + width))

    def _wider(self, tensor: RegionTensor) -> Iterator[tuple[str, Quantised, int]]:
        """Matrices and orders in which so many outputs of theirs would fill the tensor."""
        dtype = CODES if tensor.dtype == CODES else None
        for layout in LAYOUTS.values():
            if not isinstance(layout, Quantised) or layout.dtype != dtype:
                continue
            for name, values in self._placeholders.items():
                if layout.takes(values.shape):
                    inputs, outputs = layout.sides(values.shape)
                    width, rest = divmod(prod(tensor.shape), layout.count((inputs, 1)))
                    if not rest and width < outputs:
                        yield name, layout, width

    def _is(self, candidate: PackedWeight, packed: Array) -> bool:
        values = self._placeholders[candidate.source]
        cut = LAYOUTS[candidate.layout].first
        # Most candidates fall here, for little work.
        looks_alike = (
            cut is None or bool(candidate.part) or self._begins(candidate, cut(values), packed)
        )
        return looks_alike and np.array_equal(candidate.pack(values), packed)

    def _begins(self, candidate: PackedWeight, values: Array, packed: Array) -> bool:
        """Whether what comes first in a tensor is what the candidate makes of these values."""
        key = replace(candidate, offset=0)
        if key not in self._heads:
            self._heads[key] = candidate.pack(values).tobytes()
        head = self._heads[key]
        return packed[: len(head)].tobytes() == head


def _parts(values: Array, tensor: RegionTensor, packed: Array) -> Iterator[tuple[Part, str]]:
    """Where in a vector or matrix, as it is or transposed, the packed one might have been cut."""
    shape = tuple(extent for extent in tensor.shape if extent != 1) or (1,)
    if values.ndim > 2 or len(shape) > values.ndim:
        return
    bits = np.dtype(f"u{DTYPES[tensor.dtype].itemsize}")
    first = packed[: bits.itemsize].view(bits)[0]
    starts = np.argwhere(values.astype(DTYPES[tensor.dtype]).view(bits) == first)
    for layout in ("same", "transposed")[: values.ndim]:
        cut = (1,) * (values.ndim - len(shape)) + shape
        cut = cut[::-1] if layout == "transposed" else cut
        for start in starts.tolist():
            part = tuple((a, a + n) for a, n in zip(start, cut, strict=True))
            if all(stop <= extent for (_, stop), extent in zip(part, values.shape, strict=True)):
                yield part, layout


def _is_constant(tensor: RegionTensor, constants: Sequence[str]) -> bool:
    """Whether no weight can have an influence on it."""
    if TABLES.fullmatch(tensor.dtype):
        return True
    return any(tensor.name == name or tensor.name.startswith(f"{name}_") for name in constants)


def _is_uniform(tensor: RegionTensor, region: Array) -> bool:
    """Whether it is one value all over (a scale of ones), which no random weight could become.

    Of few channels, the ones are those of a `diagonal` layout.
    """
    if tensor.dtype not in DTYPES:
        return False
    values = region[tensor.offset : tensor.end].view(DTYPES[tensor.dtype])
    if len(values) < FEWEST:
        return False
    if bool((values == values[0]).all()):
        return True
    return any(
        np.array_equal(layout.arrange(np.ones(channels, values.dtype)).reshape(-1), values)
        for layout in LAYOUTS.values()
        for channels in set(tensor.shape)
        if layout.name.startswith("diagonal") and layout.count((channels,)) == len(values)
    )


def _constants(
    region: Array, weights: Mapping[int, int], tensors: Sequence[RegionTensor]
) -> Iterator[Constant]:
    """What is not zero beside the `weights` (offset -> end). Raises NotLearnedError.

    Tables of indices take more room than the shape that the MLIR states; nothing else may.
    """
    ends = [tensor.offset for tensor in tensors[1:]] + [len(region)]
    for tensor, end in zip(tensors, ends, strict=True):
        start = weights.get(tensor.offset, tensor.offset)
        places = np.flatnonzero(region[start:end])
        if not len(places):
            continue
        first, last = start + int(places[0]), start + int(places[-1])
        if not TABLES.fullmatch(tensor.dtype) and (tensor.offset in weights or last >= tensor.end):
            raise NotLearnedError(f"bytes behind {tensor.name} belong to nothing known")
        yield Constant(first, region[first : last + 1].tobytes())
