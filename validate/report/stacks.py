"""The geometry of stacked bars: one row an artifact, one segment for what takes part of its time.

`plots.html.j2` draws them. Coordinates are SVG user units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from targets.base import Artifact, Estimate
from validate.report.plots import Tick

KINDS_SHOWN = 7
"""Kinds of layers with a colour of their own; the others are one."""

ENGINES = {
    "compute_ms": ("compute", "computing, no data moves"),
    "both_ms": ("both", "computing while data moves"),
    "dma_ms": ("dma", "data moves, nothing computes"),
    "idle_ms": ("rest", "neither"),
}
"""Field of `EngineTimes` -> the colour's name and the words for it."""


@dataclass(frozen=True)
class Segment:
    """A piece of a bar: where it begins, how wide it is, its colour's name, and what it says."""

    at: float
    width: float
    colour: str
    title: str


@dataclass(frozen=True)
class Stack:
    """One bar; `text` stands at its end."""

    label: str
    segments: Sequence[Segment]
    end: float
    text: str


@dataclass(frozen=True)
class Stacks:
    """Bars over one axis in milliseconds; `legend` is the name of each colour and its words."""

    title: str
    width: float
    row: float
    ticks: Sequence[Tick]
    bars: Sequence[Stack]
    legend: Sequence[tuple[str, str]]


def stacks(
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    legend: Mapping[str, str],
    width: float = 560,
) -> Stacks:
    """Lay out one bar per row: milliseconds by the name of a colour, in the legend's order."""
    longest = max(sum(parts.values()) for parts in rows.values())
    step = _round_step(longest / 6)
    top = np.ceil(longest / step) * step

    def bar(label: str, parts: Mapping[str, float]) -> Stack:
        segments, at = [], 0.0
        for colour, words in legend.items():
            ms = parts.get(colour, 0.0)
            place, length = (round(v / top * width, 1) for v in (at, ms))
            segments.append(Segment(place, length, colour, f"{words}: {ms:.3g} ms"))
            at += ms
        shown = [segment for segment in segments if segment.width > 0]
        return Stack(label, shown, round(at / top * width, 1), f"{at:.3g} ms")

    ticks = [Tick(round(v / top * width, 1), f"{v:g}") for v in np.arange(0, top + step / 2, step)]
    bars = [bar(label, parts) for label, parts in rows.items()]
    return Stacks(title, width, 26, ticks, bars, list(legend.items()))


def by_engine(artifacts: Sequence[Artifact]) -> Stacks | None:
    """What the engines do meanwhile; None where no compiler tells."""
    rows = {
        label: {colour: getattr(told.engines, name) for name, (colour, _) in ENGINES.items()}
        for label, told in _told(artifacts).items()
    }
    return stacks("by engine", rows, dict(ENGINES.values())) if rows else None


def by_layer(artifacts: Sequence[Artifact]) -> Stacks | None:
    """Which layers take the time; the kinds that take most over all artifacts have colours."""
    told = _told(artifacts)
    if not told:
        return None
    sums: dict[str, float] = {}
    for estimate in told.values():
        for layer in estimate.layers:
            sums[layer.kind] = sums.get(layer.kind, 0.0) + layer.ms
    most = sorted(sums, key=sums.__getitem__, reverse=True)[:KINDS_SHOWN]
    colours = {kind: f"kind{index}" for index, kind in enumerate(most)}
    rows: dict[str, dict[str, float]] = {}
    for label, estimate in told.items():
        parts = rows[label] = {"rest": estimate.engines.idle_ms}
        for layer in estimate.layers:
            colour = colours.get(layer.kind, "others")
            parts[colour] = parts.get(colour, 0.0) + layer.ms
    legend = {colour: kind for kind, colour in colours.items()}
    if len(sums) > len(most):
        legend["others"] = "other layers"
    return stacks("by kind of layer", rows, {**legend, "rest": "no layer"})


def _told(artifacts: Sequence[Artifact]) -> dict[str, Estimate]:
    return {f"{a.label} on {a.target}": a.estimate for a in artifacts if a.estimate is not None}


def _round_step(least: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least that much."""
    power = 10.0 ** np.floor(np.log10(least))
    return next(float(power * digit) for digit in (1, 2, 5, 10) if power * digit >= least)
