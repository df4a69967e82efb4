"""One line of a family's table: a tensor of the module and where the file keeps it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from converter.checkpoint import TensorInfo
from converter.weights import Array

Shape = tuple[int, ...]

HEAD_SIZE = 64
"""Channels per attention head of every CLIP, and of the UNets from SD2 on."""


def extent(info: TensorInfo | None, axis: int) -> int:
    """The length of a tensor along an axis; 0 where there is no such tensor or axis."""
    return info.shape[axis] if info is not None and len(info.shape) > axis else 0


@dataclass(frozen=True)
class TensorRule:
    """`name` in the module is `source` in the file.

    `shape` is the module's. The file may hold it with trailing extents of 1 (a linear layer
    stored as a 1x1 convolution, or the reverse): the bytes are the same.

    `part` (index, count) says that the file's tensor is `count` of the module's stacked along the
    rows, and which of them this is. `transposed`: the file holds the matrix transposed.
    A rule that is not `needed` names a tensor that belongs to the model (files hold it, adapters
    may change it) and on which no output of the graph depends.
    """

    name: str
    source: str
    shape: Shape
    part: tuple[int, int] = (0, 1)
    transposed: bool = False
    needed: bool = True

    @property
    def stored_shape(self) -> Shape:
        """The whole tensor's shape in the file, without added extents of 1."""
        shape = self.shape[::-1] if self.transposed else self.shape
        return (shape[0] * self.part[1], *shape[1:])

    def accepts(self, shape: Shape) -> bool:
        """Whether a tensor of this shape in the file is the one meant."""
        return _without_trailing_ones(shape) == _without_trailing_ones(self.stored_shape)

    def take(self, stored: Array) -> Array:
        """Return the module's tensor, a view of the file's; no value changes."""
        index, _ = self.part
        whole = stored.reshape(self.stored_shape)
        if self.transposed:
            whole = whole.T
        return whole[index * self.shape[0] : (index + 1) * self.shape[0]]


def _without_trailing_ones(shape: Shape) -> Shape:
    end = len(shape)
    while end > 2 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


def unneeded(rules: Iterator[TensorRule]) -> Iterator[TensorRule]:
    """The same rules, marked as not needed by the graph."""
    return (replace(rule, needed=False) for rule in rules)


@dataclass(frozen=True)
class Place:
    """A spot in both name trees at once: the module's and the file's."""

    name: str
    source: str

    def at(self, name: str, source: str | None = None) -> "Place":
        """The child of that name (in the file: `source`, where it differs)."""
        return Place(f"{self.name}{name}.", f"{self.source}{source or name}.")

    def weight(self, *shape: int) -> Iterator[TensorRule]:
        """A weight alone."""
        yield TensorRule(f"{self.name}weight", f"{self.source}weight", shape)

    def weight_and_bias(self, *shape: int) -> Iterator[TensorRule]:
        """A weight of this shape and a bias as long as its first extent."""
        yield from self.weight(*shape)
        yield TensorRule(f"{self.name}bias", f"{self.source}bias", shape[:1])
