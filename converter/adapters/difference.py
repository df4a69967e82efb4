"""Whole differences, ``W + diff`` and ``b + diff``, for layers and for norms; and whole tensors.

Keys of differences as in LyCORIS (`full` and `norm`) and in files extracted by ComfyUI and kohya's
scripts. Whole tensors stand in the place of the checkpoint's: PEFT saves so what it trains beside
an adapter (`modules_to_save`, and `bias` other than ``none``).
"""

from converter.adapters.base import Kind, Parts, Shape, Shapes
from converter.weights import Array


def _difference(name: str, part: str, tensor: str) -> Kind:
    """A kind of one part, which is the change itself, of the tensor's size."""

    def fits(shapes: Shapes, weight: Shape) -> bool:
        return _same_size(shapes[part], weight)

    def change(_: Array, parts: Parts) -> Array:
        return parts[part]

    needs = (frozenset({part}),)
    return Kind(name, {f".{part}": part}, needs, fits, change, tensor=tensor)


def _whole(tensor: str) -> Kind:
    """A kind of one part, which takes the tensor's place."""

    def fits(shapes: Shapes, weight: Shape) -> bool:
        return _same_size(shapes["whole"], weight)

    def change(weight: Array, parts: Parts) -> Array:
        return parts["whole"].reshape(weight.shape) - weight

    return Kind(
        name=f"whole {tensor}",
        endings={f"{WHOLE}{tensor}": "whole"},
        needs=(frozenset({"whole"}),),
        fits=fits,
        change=change,
        multiplicative=True,
        tensor=tensor,
    )


def _same_size(found: Shape, wanted: Shape) -> bool:
    """A layer may be a matrix in one tool and a 1x1 convolution in another."""
    return [n for n in found if n > 1] == [n for n in wanted if n > 1]


WHOLE = ".whole."
"""Before ``weight`` or ``bias``; PEFT's own keys end like those of a model (`keys.split_key`)."""


WHOLE_TENSORS = (_whole("weight"), _whole("bias"))
DIFFERENCES = (
    _difference("full difference", "diff", "weight"),
    _difference("bias difference", "diff_b", "bias"),
    _difference("norm difference", "w_norm", "weight"),
    _difference("norm bias difference", "b_norm", "bias"),
)
