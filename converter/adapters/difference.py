"""Whole differences: ``W + diff`` and ``b + diff``, for layers and for norms.

Keys as in LyCORIS (`full` and `norm`) and in files extracted by ComfyUI and kohya's scripts.
"""

from converter.adapters.base import Kind, Parts, Shape, Shapes
from converter.weights import Array


def _difference(name: str, part: str, tensor: str) -> Kind:
    """A kind of one part, which is the change itself, of the tensor's size."""

    def fits(shapes: Shapes, weight: Shape) -> bool:
        # A layer may be a matrix in one tool and a 1x1 convolution in another.
        return [n for n in shapes[part] if n > 1] == [n for n in weight if n > 1]

    def change(_: Array, parts: Parts) -> Array:
        return parts[part]

    needs = (frozenset({part}),)
    return Kind(name, {f".{part}": part}, needs, fits, change, tensor=tensor)


DIFFERENCES = (
    _difference("full difference", "diff", "weight"),
    _difference("bias difference", "diff_b", "bias"),
    _difference("norm difference", "w_norm", "weight"),
    _difference("norm bias difference", "b_norm", "bias"),
)
