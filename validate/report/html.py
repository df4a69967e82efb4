"""The report for people: one self-contained HTML file that opens without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from converter.weights import Array
from validate.base import TOGETHER, Check, Level, Report, Result, Threshold
from validate.baseline import TOLERANCE_DB
from validate.latency import Latency
from validate.report.pictures import Picture, side_by_side
from validate.report.plots import (
    HEIGHT,
    WIDTH,
    Histogram,
    Scatter,
    histogram,
    overview,
    scatter,
)
from validate.report.sections import (
    WORST,
    gallery,
    interiors,
    level_lines,
    trajectories,
    wrong,
)
from validate.report.stacks import Stacks, by_engine, by_layer
from validate.store import read_arrays


@dataclass(frozen=True)
class Figures:
    """What is drawn of an artifact's worst case; empty where nothing was run."""

    check: Check
    pictures: Sequence[Picture]
    histogram: Histogram | None
    scatter: Scatter | None


MEASURED = (Level.COMPONENT, *TOGETHER)
"""The levels whose results stand in the overview: those of outputs."""

LISTED = 8
"""Entries of a list that are shown; of longer ones, only the count."""


def render_html(report: Report) -> str:
    """Return the whole page. Reads the arrays of every worst case, one artifact at a time."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain_rows}
    results = sorted(report.results, key=_badness)
    alone = [result for result in results if result.level in (Level.COMPONENT, Level.PICTURE)]
    return environment.get_template("report.html.j2").render(
        report=report,
        levels=level_lines(report),
        wrong=wrong(report),
        results=[(result, figures(result)) for result in alone],
        exports=[result for result in results if result.level == Level.EXPORT],
        gallery=gallery(results),
        trajectories=trajectories(results),
        interiors=interiors(results),
        worst=WORST,
        overview=overview([r for r in results if r.level in MEASURED]),
        tolerance_db=TOLERANCE_DB,
        latency=report.latency,
        stacks=latency_plots(report.latency),
        thresholds=thresholds(results),
        plot_width=WIDTH,
        plot_height=HEIGHT,
    )


def figures(result: Result) -> Figures | None:
    """Draw the worst check that has arrays; None when none has."""
    check = next((check for check in result.checks if check.saved is not None), None)
    if check is None or check.saved is None or check.reference is None:
        return None
    output = read_arrays(check.saved).get(check.output, np.empty(0))
    reference: Array = read_arrays(check.reference)[check.output]
    if check.position is not None:  # all steps lie in one array
        step = slice(check.position, check.position + 1)
        output, reference = output[step], reference[step]
    return Figures(
        check,
        side_by_side(output, reference),
        histogram(output, reference, result.threshold.psnr_db),
        scatter(output, reference),
    )


def latency_plots(latency: Latency | None) -> list[Stacks]:
    """Where the predicted time goes; nothing where no compiler tells."""
    plots = () if latency is None else (by_engine(latency.artifacts), by_layer(latency.artifacts))
    return [plot for plot in plots if plot is not None]


def thresholds(results: Sequence[Result]) -> list[tuple[str, Threshold]]:
    """Every threshold that was used, with the components it was used for."""
    used: dict[Threshold, list[str]] = {}
    for result in results:
        components = used.setdefault(result.threshold, [])
        if result.component not in components:
            components.append(result.component)
    return [(", ".join(components), threshold) for threshold, components in used.items()]


def plain_rows(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Name and value of a record's entries; of a long list, how many it holds."""
    rows: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            rows += [(f"{name} {inner}", text) for inner, text in plain_rows(value)]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            listed = ", ".join(map(str, value)) or "none"
            rows.append((name, listed if len(value) <= LISTED else f"{len(value)} in all"))
        else:
            rows.append((name, str(value)))
    return rows


def _badness(result: Result) -> tuple[int, float]:
    """Worst first: by verdict, then by how far the PSNR lies above its floor."""
    measurement = result.worst.measurement
    agreement = None if measurement is None else measurement.agreement
    if agreement is None:
        return -result.verdict.badness, float("-inf")
    margin = agreement.psnr_db - result.threshold.psnr_db
    return -result.verdict.badness, margin
