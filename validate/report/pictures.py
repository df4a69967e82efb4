"""Reference, output and difference side by side: as pictures where they are, else as heat maps."""

from dataclasses import dataclass

import numpy as np

from converter.weights import Array
from runtime.png import data_uri

LARGEST = 384
"""Pixels along the longer side of a picture in the report."""

CHANNELS = 4
"""Channels of a latent that are shown."""

_HEAT = np.array([(13, 8, 60), (84, 15, 109), (187, 55, 84), (249, 142, 9), (252, 255, 164)])
_DIFFERENCE = np.array(
    [(5, 80, 160), (120, 180, 220), (247, 247, 247), (240, 150, 100), (165, 20, 30)]
)
_NOT_A_NUMBER = (255, 0, 255)


@dataclass(frozen=True)
class Picture:
    """An image for the report and the words below it."""

    title: str
    address: str


def side_by_side(output: Array, reference: Array) -> list[Picture]:
    """Three pictures of the first row of the batch."""
    if output.shape != reference.shape:
        return []
    # Inf as NaN: an average with either is NaN, and is drawn as such.
    x, r = (np.where(np.isfinite(a[0]), a[0], np.nan).astype(float) for a in (output, reference))
    if r.ndim == 3 and r.shape[0] == 3:
        return photographs(x, r)
    return _heat_maps(_sheet(x), _sheet(r))


def photographs(x: Array, r: Array) -> list[Picture]:
    """Reference, artifact and difference of two pictures [3, H, W] in [-1, 1]."""
    difference = np.abs(x - r) / 2
    largest = float(np.nanmax(difference, initial=0.0))
    # A power of two that shows the largest difference at between half and full brightness.
    factor = 2 ** int(np.clip(np.floor(-np.log2(largest)), 0, 16)) if largest > 0 else 1
    shown = (
        ("reference", r / 2 + 0.5),
        ("artifact", x / 2 + 0.5),
        (f"difference x {factor}", difference * factor),
    )
    return [Picture(title, data_uri(_rgb(np.moveaxis(p, 0, -1)))) for title, p in shown]


def _rgb(picture: Array) -> Array:
    small = _shrink(picture)
    pixels = (np.clip(np.nan_to_num(small), 0, 1) * 255).round().astype(np.uint8)
    pixels[~np.isfinite(small).all(axis=-1)] = _NOT_A_NUMBER
    return np.asarray(pixels)


def _heat_maps(x: Array, r: Array) -> list[Picture]:
    low, high = float(np.nanmin(r)), float(np.nanmax(r))
    error = x - r
    finite = error[np.isfinite(error)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    scale = f"{low:.3g} to {high:.3g}"
    return [
        Picture(f"reference, {scale}", data_uri(_coloured(r, low, high, _HEAT))),
        Picture("artifact, same scale", data_uri(_coloured(x, low, high, _HEAT))),
        Picture(
            f"difference, ±{largest:.2g}",
            data_uri(_coloured(error, -largest, largest, _DIFFERENCE)),
        ),
    ]


def _coloured(values: Array, low: float, high: float, colours: Array) -> Array:
    small = _shrink(values)
    place = np.clip((np.nan_to_num(small) - low) / ((high - low) or 1.0), 0, 1)
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(place, stops, colours[:, channel]) for channel in range(3)]
    pixels = np.stack(channels, axis=-1).round().astype(np.uint8)
    pixels[~np.isfinite(small)] = _NOT_A_NUMBER
    return pixels


def _sheet(values: Array) -> Array:
    """Lay out as one matrix: channels in two columns, tokens as rows, a vector as a band."""
    if values.ndim == 3:
        channels = values[:CHANNELS]
        if len(channels) < CHANNELS:
            return np.concatenate(list(channels), axis=1)
        top, bottom = (np.concatenate(list(pair), axis=1) for pair in (channels[:2], channels[2:]))
        return np.concatenate([top, bottom], axis=0)
    return values if values.ndim == 2 else np.repeat(values.reshape(1, -1), 16, axis=0)


def _shrink(values: Array) -> Array:
    """Average blocks, so that neither side is longer than `LARGEST`."""
    blocks = [-(-side // LARGEST) for side in values.shape[:2]]
    if values.ndim == 3:
        blocks = [max(blocks)] * 2  # a photograph keeps its proportions
    height, width = (side // block for side, block in zip(values.shape, blocks, strict=False))
    cut = values[: height * blocks[0], : width * blocks[1]]
    cells = cut.reshape(height, blocks[0], width, blocks[1], *values.shape[2:])
    return np.asarray(cells.mean(axis=(1, 3)))
