"""The noise that sampling begins with, by whose generator it is.

A picture is only the same with the same noise, and every consumer draws its own. "numpy" is this
program's; the others are what a program in C++ gets from `std::mt19937` seeded with the seed and
`std::normal_distribution<float>`, whose algorithm the standard leaves open: GNU's library
("libstdc++", most of Linux) and LLVM's ("libc++", Android and Apple) both use Marsaglia's polar
method on pairs of uniform numbers, and give the two numbers of a pair in another order.
"""

from collections.abc import Callable, Mapping

import numpy as np

from converter.errors import InputError
from converter.sizes import LATENT_CHANNELS, LATENT_SCALE, Size
from converter.weights import Array

LARGEST_SEED = 2**32 - 1
"""Of `std::mt19937`."""


def first_latent(size: Size, seed: int, noise: str = "numpy") -> Array:
    """Return the noise that sampling begins with: float32 [1, 4, H/8, W/8], the same everywhere.

    Raises InputError for an unknown generator, or a seed that it does not take.
    """
    if noise not in NOISES:
        raise InputError(f"unknown noise {noise!r}: choose one of {', '.join(NOISES)}")
    shape = (1, LATENT_CHANNELS, size.height // LATENT_SCALE, size.width // LATENT_SCALE)
    return NOISES[noise](int(np.prod(shape)), seed).reshape(shape)


def _numpy(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(count, np.float32)


def _gnu(count: int, seed: int) -> Array:
    first, second = _polar(-(-count // 2), seed)
    return np.stack([second, first], axis=1).reshape(-1)[:count]


def _llvm(count: int, seed: int) -> Array:
    first, second = _polar(-(-count // 2), seed)
    return np.stack([first, second], axis=1).reshape(-1)[:count]


def _polar(count: int, seed: int) -> tuple[Array, Array]:
    """Marsaglia's polar method: `count` pairs of independent normal numbers, in float32."""
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed {seed}: this noise takes 0 to {LARGEST_SEED}")
    generator = np.random.MT19937()
    generator._legacy_seeding(seed)  # as std::mt19937 is seeded
    pairs = np.empty((0, 2), np.float32)
    while len(pairs) < count:
        raw = generator.random_raw(2 * count).astype(np.float32).reshape(-1, 2)
        square = np.float32(2) * (raw * np.float32(2**-32)) - np.float32(1)
        radius = square[:, 0] * square[:, 0] + square[:, 1] * square[:, 1]
        inside = (radius <= 1) & (radius != 0)
        kept, within = square[inside], radius[inside]
        logarithm = np.log(within.astype(np.float64)).astype(np.float32)  # rounded as in C
        factor = np.sqrt(np.float32(-2) * logarithm / within)
        pairs = np.concatenate([pairs, kept * factor[:, None]])
    return pairs[:count, 0], pairs[:count, 1]


NOISES: Mapping[str, Callable[[int, int], Array]] = {
    "numpy": _numpy,
    "libstdc++": _gnu,
    "libc++": _llvm,
}
"""By name: so many normal numbers of a seed."""
