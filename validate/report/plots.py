"""The geometry of the report's plots; `plots.html.j2` draws it as SVG.

Coordinates are SVG user units, y downwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.weights import Array
from validate.base import Result
from validate.seeds import generator

WIDTH, HEIGHT = 360, 190
"""Of the drawing area of the two plots of one artifact."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """One artifact in the overview. None: it was not run."""

    label: str
    verdict: str
    value: float | None
    text: str
    floor: float
    expected: float


@dataclass(frozen=True)
class Overview:
    """PSNR of every artifact's worst case beside what its precision must reach."""

    width: float
    row: float
    ticks: Sequence[Tick]
    bars: Sequence[Bar]


def overview(results: Sequence[Result], width: float = 520) -> Overview:
    """Lay out one row per result, on an axis in decibels from 0."""
    measured = [result.worst.measurement for result in results]
    values = [None if m is None or m.agreement is None else m.agreement.psnr_db for m in measured]
    top = max([20 * np.ceil(v / 20) for v in values if v is not None and v < 160] + [100.0])

    def x(decibels: float) -> float:
        return round(float(np.clip(decibels / top, 0, 1)) * width, 1)

    bars = [
        Bar(
            label=result.label,
            verdict=result.verdict.value,
            value=None if value is None else x(value),
            text=_words(result, value),
            floor=x(result.threshold.psnr_db),
            expected=x(result.threshold.expected_db),
        )
        for result, value in zip(results, values, strict=True)
    ]
    ticks = [Tick(x(step), f"{step:g}") for step in np.arange(0, top + 1, 20)]
    return Overview(width, 26, ticks, bars)


def _words(result: Result, value: float | None) -> str:
    if value is not None:
        return f"{value:.1f} dB"
    return "not run" if result.worst.measurement is None else "no number"


@dataclass(frozen=True)
class Histogram:
    """How errors are distributed: a filled outline over log10(|error| / peak)."""

    outline: str
    ticks: Sequence[Tick]
    limit: Tick


def histogram(output: Array, reference: Array, floor_db: float) -> Histogram | None:
    """Share of values per size of error; the limit is the RMSE that the PSNR floor allows."""
    error, peak = _error(output, reference)
    if error is None:
        return None
    low, high = -9.0, 0.5
    size = np.log10(np.maximum(np.abs(error) / peak, 10**low))
    share, edges = np.histogram(np.clip(size, low, high), bins=38, range=(low, high))

    def x(place: float) -> float:
        return round((place - low) / (high - low) * WIDTH, 1)

    heights = share / share.max() * (HEIGHT - 10)
    steps = zip(edges[:-1], edges[1:], heights, strict=True)
    points = " ".join(f"H{x(a)} V{HEIGHT - h:.1f} H{x(b)}" for a, b, h in steps)
    ticks = [Tick(x(power), f"1e{power}") for power in range(-8, 1, 2)]
    limit = Tick(x(-floor_db / 20), f"{floor_db:g} dB")
    return Histogram(f"M0,{HEIGHT} {points} V{HEIGHT} Z", ticks, limit)


@dataclass(frozen=True)
class Scatter:
    """Output against reference, value by value: a right artifact lies on the diagonal."""

    points: str
    ticks: Sequence[Tick]


def scatter(output: Array, reference: Array, samples: int = 700) -> Scatter | None:
    """Draw a fixed random sample of the values, both axes from -peak to peak."""
    error, peak = _error(output, reference)
    if error is None:
        return None
    chosen = generator("scatter").integers(0, reference.size, samples)
    r, x = (np.clip(a.ravel()[chosen] / peak, -1, 1) for a in (reference, output))
    across, down = (r + 1) / 2 * WIDTH, (1 - x) / 2 * HEIGHT
    # A stroke of no length with round ends is a dot; one path holds them all.
    points = "".join(f"M{a:.1f},{d:.1f}h0" for a, d in zip(across, down, strict=True))
    ticks = [Tick(0, f"{-peak:.2g}"), Tick(WIDTH / 2, "0"), Tick(WIDTH, f"{peak:.2g}")]
    return Scatter(points, ticks)


def _error(output: Array, reference: Array) -> tuple[Array | None, float]:
    """Return error and reference peak; no error where nothing can be drawn."""
    if output.shape != reference.shape or not np.isfinite(output).all():
        return None, 0.0
    peak = float(np.abs(reference).max(initial=0.0))
    if not np.isfinite(peak) or peak == 0:
        return None, peak
    return (output.astype(np.float64) - reference).ravel(), peak
