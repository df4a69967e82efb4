"""BOFT as PEFT trains it: rotated inputs and scaled outputs, ``W -> s * (R W^T)^T``.

R is a product of block-diagonal rotations ``(I - Q) (I + Q)^-1`` with ``Q = (B - B^T) / 2``; in the
k-th, runs of half a block are dealt out over 2^k neighbouring blocks like the two halves of a deck.
The inputs of a convolution are its channels and kernel together.

Sources: https://arxiv.org/abs/2311.06243, `peft/tuners/boft/layer.py` of
https://github.com/huggingface/peft.
"""

from math import prod

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes, flat, matrix
from converter.adapters.oft import block_product, cayley
from converter.weights import Array


def fits(shapes: Shapes, weight: Shape) -> bool:
    """Blocks are [stages, number, size, size], number * size = inputs; a factor an output."""
    blocks = shapes["boft_R"]
    if len(weight) < 2 or len(blocks) != 4 or prod(shapes["boft_s"]) != weight[0]:
        return False
    stages, number, size, other = blocks
    if size != other or number * size != flat(weight)[1]:
        return False
    return stages == 1 or (size % 2 == 0 and number % 2 ** (stages - 1) == 0)


def change(weight: Array, parts: Parts) -> Array:
    """Return what rotating the inputs and scaling the outputs changes."""
    columns = matrix(weight).T
    blocks = parts["boft_R"]
    rotations = cayley((blocks.swapaxes(-1, -2) - blocks) / 2)
    half = blocks.shape[-1] // 2
    rotated = block_product(rotations[0], columns)
    for stage, rotation in enumerate(rotations[1:], 1):
        dealt = rotated.reshape(-1, 2, 2**stage, half, len(weight)).swapaxes(1, 2)
        mixed = block_product(rotation, dealt.reshape(rotated.shape))
        gathered = mixed.reshape(-1, 2**stage, 2, half, len(weight)).swapaxes(1, 2)
        rotated = gathered.reshape(rotated.shape)
    return np.ascontiguousarray((rotated * parts["boft_s"].reshape(1, -1) - columns).T)


PEFT_BOFT = Kind(
    name="BOFT of PEFT",
    endings={".boft_R": "boft_R", ".boft_s": "boft_s"},
    needs=(frozenset({"boft_R", "boft_s"}),),
    fits=fits,
    change=change,
    multiplicative=True,
)
