"""The matrix for people and programs: a table in the terminal, a page, and JSON (schema 1)."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

import validate.report
from converter.files import replacing, write_json
from validate.base import Link
from validate.matrix.base import Cell, Matrix
from validate.report.plots import Tick
from validate.report.terminal import STYLES

TEMPLATES = Path(validate.report.__file__).parent

WIDTH, HEIGHT = 420.0, 240.0
"""Of the drawing area of a component's plot."""

NEAR_X, NEAR_Y = 60.0, 12.0
"""What the label of a precision takes."""


def print_matrix(matrix: Matrix, console: Console) -> None:
    """Print every cell, what is recommended, and the command for it."""
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    for column in ("component", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("PSNR dB", "MB", "ms"):
        table.add_column(column, justify="right")
    table.add_column("")
    for cell in matrix.cells:
        chosen = matrix.chosen.get(cell.component) == cell.precision
        said = "recommended" if chosen else "" if cell.leads else _short(cell)
        style = "bold green" if chosen else STYLES[cell.verdict] if cell.psnr_db is None else ""
        table.add_row(*_row(cell), said, style=style)
    console.print(table)
    for line in _lines(matrix):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in matrix.lacking:
        console.print(Text(line, style="bold red"), soft_wrap=True)


def _lines(matrix: Matrix) -> list[str]:
    lines = [f"left out: {name}: {why}" for name, why in matrix.left_out.items()]
    if was_lowered(matrix):
        lines.append(
            "measured in the compiler's interpreter: what a precision costs; --emulate runs the "
            "instructions themselves"
        )
    floor = matrix.request.floor
    wanted = "that passes" if floor is None else f"that reaches {floor:g} dB"
    lines.append(f"the cheapest {wanted}: {shlex.join(matrix.recommended.command())}")
    return lines


def was_lowered(matrix: Matrix) -> bool:
    """Whether any number is of a lowered network, not of an artifact."""
    return any(
        check.link is Link.LOWERED
        for cell in matrix.cells
        for result in cell.results
        for check in result.checks
    )


def write_matrix(matrix: Matrix) -> list[Path]:
    """Write both reports into the matrix's folder; return their paths."""
    folder = matrix.request.output
    html, data = folder / "matrix.html", folder / "matrix.json"
    write_json(data, matrix_to_json(matrix))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("matrix.html.j2").render(
        matrix=matrix,
        plots=[pareto(matrix, component) for component in matrix.components],
        lowered=was_lowered(matrix),
        command=shlex.join(matrix.recommended.command()),
        again=shlex.join(matrix.request.command()),
    )
    with replacing(html) as work:
        work.write_text(page)
    return [html, data]


def matrix_to_json(matrix: Matrix) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "schema": 1,
        "created": matrix.created,
        "bundle": str(matrix.request.bundle.absolute()),
        "target": matrix.request.target,
        "sizes": [str(size) for size in matrix.request.sizes],
        "floor_db": matrix.request.floor,
        "lowered": was_lowered(matrix),
        "cells": [
            {
                "component": cell.component,
                "precision": cell.precision,
                "psnr_db": cell.psnr_db,
                "bytes": cell.nbytes,
                "ms": cell.ms,
                "verdict": cell.verdict.value,
                "sentence": cell.sentence,
                "leads": cell.leads,
                "recommended": matrix.chosen.get(cell.component) == cell.precision,
                "folder": str(cell.folder.absolute()),
            }
            for cell in matrix.cells
        ],
        "left_out": dict(matrix.left_out),
        "lacking": list(matrix.lacking),
        "recommended": dict(matrix.chosen),
        "command": matrix.recommended.command(),
        "versions": dict(matrix.versions),
    }


@dataclass(frozen=True)
class Mark:
    """One precision in a component's plot; `kind` is chosen, leads or other."""

    x: float
    y: float
    label: str
    kind: str
    title: str


@dataclass(frozen=True)
class Label:
    """The names of marks that lie too near each other for a label each; to the right of them."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Pareto:
    """PSNR over milliseconds, where the target tells any, else over megabytes.

    `front` is the path through those that no other beats.
    """

    component: str
    unit: str
    marks: Sequence[Mark]
    labels: Sequence[Label]
    front: str
    floor: float | None
    across: Sequence[Tick]
    upwards: Sequence[Tick]


def pareto(matrix: Matrix, component: str) -> Pareto:
    """Lay out the cells of a component that have a number."""
    cells = [matrix.cell(component, p) for p in matrix.precisions]
    known = [cell for cell in cells if cell.psnr_db is not None]
    timed = all(cell.ms is not None for cell in known)
    costs = [(cell.ms or 0.0) if timed else cell.nbytes / 1e6 for cell in known]
    levels = [min(cell.psnr_db or 0.0, 160.0) for cell in known]
    most = _round_up(max(costs, default=1.0))
    top = 20 * float(np.ceil(max([*levels, matrix.request.floor or 0.0, 40.0]) / 20))

    def x(cost: float) -> float:
        return round(cost / most * WIDTH, 1)

    def y(level: float) -> float:
        return round((1 - level / top) * HEIGHT, 1)

    marks = [
        Mark(x(cost), y(level), cell.precision, _kind(matrix, cell), ", ".join(_row(cell)))
        for cell, cost, level in zip(known, costs, levels, strict=True)
    ]
    front = sorted((mark.x, mark.y) for mark, cell in zip(marks, known, strict=True) if cell.leads)
    floor = matrix.request.floor
    return Pareto(
        component,
        "ms" if timed else "MB",
        marks,
        labels_of(marks),
        " ".join(f"{'L' if index else 'M'}{a},{b}" for index, (a, b) in enumerate(front)),
        None if floor is None else y(floor),
        [Tick(x(most * i / 4), f"{most * i / 4:.3g}") for i in range(5)],
        [Tick(y(level), f"{level:g}") for level in np.arange(0, top + 1, 20 if top <= 120 else 40)],
    )


def labels_of(marks: Sequence[Mark]) -> list[Label]:
    """One label for every mark, or for several that lie in each other's."""
    groups: list[list[Mark]] = []
    for mark in marks:
        for group in groups:
            if abs(group[0].x - mark.x) < NEAR_X and abs(group[0].y - mark.y) < NEAR_Y:
                group.append(mark)
                break
        else:
            groups.append([mark])
    return [
        Label(max(m.x for m in group), group[0].y, ", ".join(m.label for m in group))
        for group in groups
    ]


def _kind(matrix: Matrix, cell: Cell) -> str:
    if matrix.chosen.get(cell.component) == cell.precision:
        return "chosen"
    return "leads" if cell.leads else "other"


def _row(cell: Cell) -> tuple[str, ...]:
    level = "-" if cell.psnr_db is None else f"{cell.psnr_db:.1f}"
    size = f"{cell.nbytes / 1e6:.2f}" if cell.nbytes else "-"
    ms = "-" if cell.ms is None else f"{cell.ms:.3f}"
    return cell.component, cell.precision, level, size, ms


def _short(cell: Cell) -> str:
    return cell.sentence[:60] if cell.psnr_db is None else "another is better and no dearer"


def _round_up(value: float) -> float:
    """The next 1, 2, 4, 5 or 8 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0 else 1.0
    return float(next(power * digit for digit in (1, 2, 4, 5, 8, 10) if power * digit >= value))
