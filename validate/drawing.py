"""Drawn pictures: colourful test inputs of any size, without a file or a download.

Colours differ strongly between channels and places, so that swapped channels, flipped axes and
shifted windows all show. Everything is a signed distance, hence smooth at any resolution.
"""

from collections.abc import Callable

import numpy as np

from converter.weights import Array
from validate.seeds import generator

Canvas = tuple[Array, Array]
"""x and y of every pixel's middle; y runs over [0, 1], x over [0, width / height]."""


def draw(index: int, height: int, width: int) -> Array:
    """Picture number `index` (they repeat): float32 [3, H, W] in [-1, 1]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    picture = DRAWINGS[index % len(DRAWINGS)]((x / height, y / height))
    return np.clip(picture, 0, 1).astype(np.float32) * 2 - 1


def _colour(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue])[:, None, None]


def _paint(picture: Array, colour: Array, distance: Array) -> Array:
    """Lay a colour where `distance` < 0, with an edge about a hundredth of the height wide."""
    cover = np.clip(0.5 - distance / 0.01, 0, 1)
    return np.asarray(picture * (1 - cover) + colour * cover)


def _landscape(canvas: Canvas) -> Array:
    x, y = canvas
    picture = _colour(0.25, 0.45, 0.85) * (1 - y) + _colour(1.0, 0.6, 0.35) * y
    picture = _paint(picture, _colour(1.0, 0.9, 0.5), np.hypot(x - 0.7, y - 0.35) - 0.13)
    picture = _paint(picture, _colour(0.2, 0.3, 0.35), 0.6 + 0.1 * np.sin(5 * x) - y)
    return _paint(picture, _colour(0.15, 0.4, 0.1), 0.78 + 0.05 * np.sin(11 * x + 1) - y)


def _shapes(canvas: Canvas) -> Array:
    x, y = canvas
    picture = _colour(0.9, 0.88, 0.8) * (1 - 0.3 * x / x.max())
    picture = _paint(picture, _colour(0.85, 0.1, 0.1), np.hypot(x - 0.3, y - 0.3) - 0.2)
    box = np.maximum(abs(x - 0.65), abs(y - 0.68)) - 0.2
    picture = _paint(picture, _colour(0.1, 0.2, 0.8), box)
    bar = abs(x + y - 1.05) - 0.04
    picture = _paint(picture, _colour(0.95, 0.75, 0.05), bar)
    return _paint(picture, _colour(0.05, 0.5, 0.3), abs(np.hypot(x - 0.25, y - 0.8) - 0.12) - 0.03)


def _texture(canvas: Canvas) -> Array:
    """Draw waves and a fine grain: the high frequencies that the others lack."""
    x, y = canvas
    waves = [np.sin(40 * x + 9 * y), np.sin(25 * y - 14 * x), np.sin(60 * (x - 0.4) * (y - 0.6))]
    grain = generator("texture").standard_normal((3, *x.shape))
    return np.asarray(0.5 + 0.3 * np.stack(waves) + 0.06 * grain)


DRAWINGS: tuple[Callable[[Canvas], Array], ...] = (_landscape, _shapes, _texture)
