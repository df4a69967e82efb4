"""One line of a family's table: a tensor of the module and where the file keeps it."""

from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorRule:
    """`name` in the module is `source` in the file.

    `shape` is the module's. The file may hold it with trailing extents of 1 (a linear layer
    stored as a 1x1 convolution, or the reverse): the bytes are the same.
    """

    name: str
    source: str
    shape: Shape

    def accepts(self, shape: Shape) -> bool:
        """Whether a tensor of this shape in the file is the one meant."""
        return _without_trailing_ones(shape) == _without_trailing_ones(self.shape)


def _without_trailing_ones(shape: Shape) -> Shape:
    end = len(shape)
    while end > 2 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


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
