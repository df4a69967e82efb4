"""Make a precision matrix: compile, judge, compare, recommend."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from converter.bundle import Bundle
from converter.errors import InputError
from converter.progress import Event, Progress, silent
from runtime.staging import OpenReference
from targets.base import Target, ToolchainError
from targets.compile import compile_bundle
from targets.registry import get_target
from validate.base import Level, Report
from validate.matrix.base import Cell, Matrix, MatrixRequest
from validate.references import open_torch_reference
from validate.validate import ValidateRequest, validate
from validate.versions import versions_here

REFERENCE = "reference"
"""Inputs and the reference's outputs lie here, once for all cells."""


def make_matrix(
    request: MatrixRequest,
    progress: Progress = silent,
    *,
    open_target: Callable[[str], Target] = get_target,
    open_reference: OpenReference = open_torch_reference,
) -> Matrix:
    """Compile and judge what was not before; raises InputError for what cannot be meant."""
    bundle = Bundle.load(request.bundle)
    target = open_target(request.target)
    components = request.components or tuple(bundle.components)
    precisions, left_out = _precisions(request, target)
    judge = partial(
        validate, progress=progress, open_target=open_target, open_reference=open_reference
    )
    cells = [
        _cell(request, component, precision, judge, progress)
        for component in components
        for precision in precisions
    ]
    matrix = Matrix(
        request,
        [replace(cell, leads=_leads(cell, cells)) for cell in cells],
        left_out,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions=versions_here(),
    )
    return recommend(matrix)


def _precisions(request: MatrixRequest, target: Target) -> tuple[list[str], dict[str, str]]:
    unknown = set(request.precisions or ()) - set(target.precisions)
    if unknown:
        raise InputError(
            f"{', '.join(sorted(unknown))}: target {target.name} has "
            f"{', '.join(target.precisions)}: choose of these"
        )
    wanted = [p for p in target.precisions if p in (request.precisions or target.precisions)]
    left_out = {
        precision: "needs --calibration, a folder of 'sdconv calibrate'"
        for precision in wanted
        if request.calibration is None and target.needs_calibration(precision, None)
    }
    return [precision for precision in wanted if precision not in left_out], left_out


def _cell(
    request: MatrixRequest,
    component: str,
    precision: str,
    judge: Callable[[ValidateRequest], Report],
    progress: Progress,
) -> Cell:
    compilation = request.cell(component, precision)
    cell = Cell(component, precision, compilation.output)
    try:
        manifest = compile_bundle(compilation, progress)
    except ToolchainError as e:
        progress(Event(f"compile {component} {precision}", 1, str(e)))
        return replace(cell, failed=str(e))
    report = judge(
        ValidateRequest(
            compilation.output,
            levels=(Level.COMPONENT,),
            emulator_budget=request.emulator_budget,
            lowered=not request.emulate,
            references=request.output / REFERENCE,
        )
    )
    files = {name for a in manifest.artifacts for name in (a.path, *a.files)}
    return replace(
        cell,
        results=report.results,
        nbytes=sum((manifest.folder / name).stat().st_size for name in files),
        ms=manifest.artifacts[0].predicted_ms,
    )


def _leads(cell: Cell, cells: Sequence[Cell]) -> bool:
    """Whether no other precision of the component beats it in one respect and loses in none."""
    if cell.psnr_db is None:
        return False
    mine = (-cell.psnr_db, *cell.price)
    others = [
        (-other.psnr_db, *other.price)
        for other in cells
        if other.component == cell.component and other.psnr_db is not None and other is not cell
    ]
    return not any(
        other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in others
    )


def recommend(matrix: Matrix) -> Matrix:
    """Choose for every component the cheapest precision that reaches the floor."""
    floor = matrix.request.floor
    chosen: dict[str, str] = {}
    lacking = []
    for component in matrix.components:
        mine = [matrix.cell(component, precision) for precision in matrix.precisions]
        good = [cell for cell in mine if cell.reaches(floor)]
        if good:
            # As cheap as another, the better one.
            best = min(good, key=lambda cell: (*cell.price, -(cell.psnr_db or 0.0)))
            chosen[component] = best.precision
            continue
        lacking.append(_lacking(component, mine, floor))
    return replace(matrix, chosen=chosen, lacking=lacking)


def _lacking(component: str, cells: Sequence[Cell], floor: float | None) -> str:
    wanted = "its threshold" if floor is None else f"{floor:g} dB"
    numbers = [cell for cell in cells if cell.psnr_db is not None]
    if not numbers:
        return f"{component}: no precision gives a number: {cells[0].sentence}"
    best = max(numbers, key=lambda cell: cell.psnr_db or 0.0)
    return (
        f"{component}: no precision reaches {wanted}; the best is {best.precision} with "
        f"{best.psnr_db:.1f} dB"
    )
