"""The judge without eyes: which shape, in which colour, on which background, is in a picture.

Plain image processing: the background is what the border shows, the colour is what differs most
from it, the shape is the template that covers the same pixels best.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from converter.sizes import Size
from converter.weights import Array
from examples.mini.pictures import DAY, SHAPES, STROKE, Palette, Scene, mask

CONTRAST = 0.2
"""A pixel this far from the background (in RGB of [0, 1]) may belong to a shape."""
FEWEST = 0.01
"""A shape covers at least this share of the picture."""
OVERLAP = 0.6
"""The least intersection over union with a template to call a shape by its name."""


@dataclass(frozen=True)
class Seen:
    """What was recognised; `shape` is ``nothing`` where no template fits.

    `overlap` is the best template's intersection over union; `outlined` says that a stroke fits
    better than the filled shape.
    """

    shape: str
    colour: str
    background: str
    overlap: float
    outlined: bool

    def shows(self, scene: Scene) -> bool:
        """Whether shape, colour and background are those of the scene."""
        mine = (self.shape, self.colour, self.background)
        return mine == (scene.shape, scene.colour, scene.background)


def recognise(picture: Array, palette: Palette = DAY) -> Seen:
    """Look at a picture: float [3, H, W] in [-1, 1]; not-a-number counts as black."""
    rgb = _rgb(picture)
    background, front, covered = _layers(rgb)
    ground = _nearest(background, palette)
    if covered.mean() < FEWEST:
        return Seen("nothing", "none", ground, 0.0, outlined=False)
    overlap, shape, outlined = _best_fit(covered)
    return Seen(
        shape if overlap >= OVERLAP else "nothing",
        _nearest(front, palette),
        ground,
        overlap,
        outlined,
    )


def is_outline(picture: Array, shape: str) -> bool:
    """Whether a stroke along the edge of this shape, thin or thick, fits better than all of it."""
    rgb = _rgb(picture)
    covered = _layers(rgb)[2]
    if covered.mean() < FEWEST:
        return False
    size, box = Size(covered.shape[1], covered.shape[0]), _box(covered)
    filled = _placed(shape, box, size, outline=False)
    stroked = _placed(shape, box, size, outline=True)
    thick = (
        _intersection_over_union(covered, mask(s, size, outline=True, stroke=width * STROKE))
        for width in (1, 2)
        for s in _around(stroked, size)
    )
    return max(thick) > max(_overlap(covered, s, outline=False) for s in _around(filled, size))


def overlap_with(picture: Array, scene: Scene) -> float:
    """Return the intersection over union of the picture's shape and the scene's, in its place."""
    rgb = _rgb(picture)
    size = Size(rgb.shape[2], rgb.shape[1])
    return _intersection_over_union(_layers(rgb)[2], mask(scene, size))


def _rgb(picture: Array) -> Array:
    """Bring a picture to [0, 1]."""
    return np.asarray(
        (np.nan_to_num(np.asarray(picture, np.float64), nan=-1.0).clip(-1, 1) + 1) / 2
    )


def _layers(rgb: Array) -> tuple[Array, Array, Array]:
    """Split into background colour [3], the shape's colour [3] and its cover [H, W]."""
    border = np.concatenate([rgb[:, 0], rgb[:, -1], rgb[:, :, 0], rgb[:, :, -1]], axis=1)
    background = np.median(border, axis=1)
    away = np.linalg.norm(rgb - background[:, None, None], axis=0)
    far = max(CONTRAST, 0.7 * float(np.quantile(away, 0.98)))
    if not (away > far).any():
        return background, background, np.zeros(away.shape)
    front = np.median(rgb[:, away > far], axis=1)
    axis = front - background
    if np.linalg.norm(axis) < CONTRAST:  # nothing has one colour of its own
        return background, background, np.zeros(away.shape)
    along = np.tensordot(axis, rgb - background[:, None, None], axes=1) / (axis @ axis)
    return background, front, along.clip(0, 1)


def _nearest(colour: Array, palette: Palette) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.array(palette[name]))))


def _best_fit(covered: Array) -> tuple[float, str, bool]:
    """Lay every template over the cover, then nudge the three best: (overlap, shape, outlined)."""
    size = Size(covered.shape[1], covered.shape[0])
    box = _box(covered)
    fits = []
    for shape in SHAPES:
        for outline in (False, True):
            scene = _placed(shape, box, size, outline)
            fits.append((_overlap(covered, scene, outline), outline, scene))
    fits.sort(key=lambda fit: -fit[0])
    overlap, outline, scene = max(
        (_nudged(covered, scene, outline) for _, outline, scene in fits[:3]),
        key=lambda fit: fit[0],
    )
    return overlap, scene.shape, outline


def _box(covered: Array) -> tuple[float, ...]:
    soft = _smooth(covered)
    return (*_extent(soft.max(axis=0)), *_extent(soft.max(axis=1)))


def _nudged(covered: Array, scene: Scene, outline: bool) -> tuple[float, bool, Scene]:
    size = Size(covered.shape[1], covered.shape[0])
    tried = ((_overlap(covered, s, outline), outline, s) for s in _around(scene, size))
    return max(tried, key=lambda fit: fit[0])


def _around(scene: Scene, size: Size) -> list[Scene]:
    """The scene a pixel to each side and with a little more or less extent."""
    return [
        replace(
            scene,
            x=scene.x + i / size.width,
            y=scene.y + j / size.height,
            radius=scene.radius * scale,
        )
        for scale in (0.94, 1.0, 1.06)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]


def _overlap(covered: Array, scene: Scene, outline: bool) -> float:
    size = Size(covered.shape[1], covered.shape[0])
    return _intersection_over_union(covered, mask(scene, size, outline=outline))


def _smooth(covered: Array) -> Array:
    """Average over 3 x 3 pixels, so that single ones do not stretch the box."""
    height, width = covered.shape
    padded = np.pad(covered, 1, mode="edge")
    return np.asarray(
        sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    )


def _extent(profile: Array) -> tuple[float, float]:
    inside = np.flatnonzero(profile > 0.5)
    return (float(inside[0]), float(inside[-1] + 1)) if len(inside) else (0.0, 1.0)


def _placed(shape: str, box: tuple[float, ...], size: Size, outline: bool) -> Scene:
    """Place a shape so that its own box has the middle and mean extent of this one, in pixels."""
    left, right, top, bottom = box
    (first_x, last_x), (first_y, last_y) = _reach(shape)
    short = min(size.width, size.height)
    stroke = STROKE * short if outline else 0.0
    extent = (last_x - first_x + last_y - first_y) / 2
    scale = max(1.0, ((right - left + bottom - top) / 2 - stroke) / extent)
    x = (left + right) / 2 - scale * (first_x + last_x) / 2
    y = (top + bottom) / 2 - scale * (first_y + last_y) / 2
    return Scene(shape, "", "", x / size.width, y / size.height, 2 * scale / short)


@cache
def _reach(shape: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """How far a shape of radius 1 reaches, in x and in y."""
    grid = np.linspace(-1, 1, 201)
    inside = SHAPES[shape](*np.meshgrid(grid, grid)) < 0
    columns, rows = grid[inside.any(axis=0)], grid[inside.any(axis=1)]
    return (float(columns[0]), float(columns[-1])), (float(rows[0]), float(rows[-1]))


def _intersection_over_union(a: Array, b: Array) -> float:
    return float(np.minimum(a, b).sum() / max(1e-9, np.maximum(a, b).sum()))
