"""What every kind of adapter declares, and nothing else.

A kind's author writes three things: the key endings of its parts as data, whether parts of given
shapes belong to a weight of a given shape, and the change of that weight. Finding modules, `alpha`,
scales, DoRA, order and the ledger are the frame's (`binding.py`, `adapter.py`, `merge.py`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod

from converter.weights import Array

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Part -> shape as stored."""
Parts = Mapping[str, Array]
"""Part -> values, float64, in the shape stored."""


def never(_: Shape) -> str | None:
    """Say that weights of every shape can be changed."""
    return None


def no_rank(_: Shapes) -> int | None:
    """Say that `alpha` does not scale the change."""
    return None


@dataclass(frozen=True)
class Kind:
    """One formula for the change of a tensor.

    `endings` maps the ending of a key to the part it holds; `needs` lists the sets of parts of
    which one must be complete. `fits` tells whether parts of these shapes, none empty, belong to a
    weight of that shape. `change` returns the change at scale 1 as a float64 array of its own, in
    the weight's shape or flattened; the weight it is given is float64 and must not be written to.
    `rank` is what divides `alpha` (None: `alpha` has no such meaning). `multiplicative` kinds read
    the weight, so their order matters. `tensor` is the module's tensor that is changed.

    Of PEFT: `settings` names values of its configuration that join the parts, as scalars, where
    there is one (`PeftSettings.values`); `needs` may ask for them. `peft_rank` tells that its
    configuration's `r` divides `alpha` where the shapes tell no rank. `bias` is what the same keys
    do to the module's bias, where it has one that fits. `outputs` is the weight's axis of the
    layer's outputs. `refuse` says why weights of a shape cannot be changed, if they cannot.
    """

    name: str
    endings: Mapping[str, str]
    needs: tuple[frozenset[str], ...]
    fits: Callable[[Shapes, Shape], bool]
    change: Callable[[Array, Parts], Array]
    rank: Callable[[Shapes], int | None] = no_rank
    multiplicative: bool = False
    tensor: str = "weight"
    settings: tuple[str, ...] = ()
    peft_rank: bool = False
    bias: "Kind | None" = None
    outputs: int = 0
    refuse: Callable[[Shape], str | None] = never

    def whole(self, parts: Collection[str]) -> bool:
        """Whether these parts are enough."""
        return any(need <= set(parts) for need in self.needs)


def all_scalars(shapes: Shapes, names: Collection[str]) -> bool:
    """Whether each of these parts, where it is there, is one number."""
    return all(prod(shapes.get(name, ())) == 1 for name in names)


def flat(shape: Shape) -> Shape:
    """Return the shape of the matrix that a weight is to a low-rank change: (outputs, the rest)."""
    return shape[0], prod(shape[1:])


def matrix(part: Array) -> Array:
    """Flatten everything after the first axis."""
    return part.reshape(len(part), -1)
