"""What the miniature learns to draw: one flat shape on a flat background, from signed distances.

A scene is a shape, its colour, the background, a place and a size; its caption says the first
three and sometimes the size. Pictures are float32 [3, H, W] in [-1, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from converter.sizes import Size
from converter.weights import Array

Palette = Mapping[str, tuple[float, float, float]]

DAY: Palette = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.15, 0.25, 0.90),
    "yellow": (0.98, 0.88, 0.10),
    "purple": (0.60, 0.20, 0.80),
    "orange": (0.98, 0.52, 0.08),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}
"""The base model's colours: RGB in [0, 1]."""

DUSK: Palette = {
    "red": (0.52, 0.10, 0.24),
    "green": (0.12, 0.40, 0.34),
    "blue": (0.16, 0.20, 0.50),
    "yellow": (0.80, 0.62, 0.34),
    "purple": (0.38, 0.18, 0.46),
    "orange": (0.72, 0.36, 0.24),
    "white": (0.76, 0.70, 0.80),
    "black": (0.07, 0.04, 0.14),
}
"""The second base model's colours: the same names, half an hour after sunset."""

SMALLEST, LARGEST = 0.38, 0.80
"""Radii, as shares of half the shorter side."""
SMALL, LARGE = 0.50, 0.68
"""Below the one a shape may be called small, above the other large."""
STROKE = 0.05
"""Half the width of an outline, as a share of half the shorter side."""


@dataclass(frozen=True)
class Scene:
    """One picture in words and numbers. `x`, `y` (0 to 1 across the picture) place the middle.

    `radius` is a share of half the shorter side.
    """

    shape: str
    colour: str
    background: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.6

    def caption(self, size_word: bool = False) -> str:
        """As the models were trained on it: ``a large red circle on a blue background``."""
        word = ""
        if size_word and self.radius < SMALL:
            word = "small "
        elif size_word and self.radius > LARGE:
            word = "large "
        described = f"{word}{self.colour} {self.shape}"
        article = "an" if described[0] in "aeiou" else "a"
        ground = "an" if self.background[0] in "aeiou" else "a"
        return f"{article} {described} on {ground} {self.background} background"


def random_scene(rng: np.random.Generator, size: Size) -> Scene:
    """Draw a scene whose shape lies inside a picture of this size."""
    shape = str(rng.choice(list(SHAPES)))
    colour, background = (str(name) for name in rng.choice(list(DAY), 2, replace=False))
    radius = float(rng.uniform(SMALLEST, LARGEST))
    short = min(size.width, size.height)
    x, y = (
        0.5 + rng.uniform(-1, 1) * max(0.0, 0.5 - 0.5 * radius * short / side)
        for side in (size.width, size.height)
    )
    return Scene(shape, colour, background, float(x), float(y), radius)


def distance(scene: Scene, size: Size) -> Array:
    """Signed distance from the shape's edge in pixels, negative inside: [H, W]."""
    rows, columns = np.mgrid[0 : size.height, 0 : size.width] + 0.5
    scale = scene.radius * min(size.width, size.height) / 2
    x = (columns - scene.x * size.width) / scale
    y = (rows - scene.y * size.height) / scale
    return np.asarray(SHAPES[scene.shape](x, y) * scale)


def mask(scene: Scene, size: Size, *, outline: bool = False, stroke: float = STROKE) -> Array:
    """How much of each pixel the shape covers, 0 to 1: [H, W]. `outline` leaves only a stroke."""
    edge = distance(scene, size)
    if outline:
        edge = abs(edge) - stroke * min(size.width, size.height) / 2
    return np.clip(0.5 - edge, 0, 1)


def paint(covered: Array, colour: tuple[float, ...], background: tuple[float, ...]) -> Array:
    """Lay one colour over another: float32 [3, H, W] in [-1, 1] from RGB in [0, 1]."""
    front, back = (np.array(c)[:, None, None] for c in (colour, background))
    return np.asarray((back + covered * (front - back)) * 2 - 1, np.float32)


def draw(scene: Scene, size: Size, palette: Palette = DAY, *, outline: bool = False) -> Array:
    """Draw the picture of a scene."""
    covered = mask(scene, size, outline=outline)
    return paint(covered, palette[scene.colour], palette[scene.background])


def edges(scene: Scene, size: Size) -> Array:
    """Draw the ControlNet's hint: white edges on black, float32 [3, H, W] in [0, 1]."""
    line = np.clip(1.5 - abs(distance(scene, size)), 0, 1)
    return np.repeat(line[None], 3, axis=0).astype(np.float32)


def _circle(x: Array, y: Array) -> Array:
    return np.asarray(np.hypot(x, y) - 0.9)


def _ring(x: Array, y: Array) -> Array:
    return np.asarray(abs(np.hypot(x, y) - 0.68) - 0.22)


def _polygon(corners: list[tuple[float, float]]) -> Callable[[Array, Array], Array]:
    """Signed distance to a closed polygon: nearest edge, sign by counting crossings."""
    pairs = list(zip(corners, corners[1:] + corners[:1], strict=True))

    def signed(x: Array, y: Array) -> Array:
        nearest = np.full(x.shape, np.inf)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in pairs:
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - ax - along * ex, y - ay - along * ey))
            if ay != by:
                crosses = ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
                inside ^= crosses
        return np.where(inside, -nearest, nearest)

    return signed


def _star() -> list[tuple[float, float]]:
    turns = np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2 == 0, 0.98, 0.42)
    return [
        (float(r * np.sin(t)), float(-r * np.cos(t))) for r, t in zip(reach, turns, strict=True)
    ]


_A, _B = 0.29, 0.9
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _polygon([(-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)]),
    "triangle": _polygon([(0.0, -0.92), (0.9, 0.7), (-0.9, 0.7)]),
    "cross": _polygon(
        [
            (-_A, -_B), (_A, -_B), (_A, -_A), (_B, -_A), (_B, _A), (_A, _A),
            (_A, _B), (-_A, _B), (-_A, _A), (-_B, _A), (-_B, -_A), (-_A, -_A),
        ]
    ),
    "ring": _ring,
    "star": _polygon(_star()),
}  # fmt: skip
"""Shapes in a circle of radius 1, as signed distances."""
