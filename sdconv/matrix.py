"""`sdconv matrix`: every precision of a target, component by component, and which to take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from validate.matrix.base import Matrix


def matrix(
    bundle: Annotated[Path, typer.Option("-n", "--bundle", help="Folder made by 'sdconv export'.")],
    target: Annotated[str, typer.Option("--target", "-t", help="See 'sdconv targets'.")],
    sizes: Annotated[str, typer.Option(help="Picture sizes WIDTHxHEIGHT, comma-separated.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of all the artifacts and the report.")
    ] = Path("matrix"),
    components: Annotated[
        str | None, typer.Option(help="Only these, comma-separated.  [default: all]")
    ] = None,
    precisions: Annotated[
        str | None, typer.Option(help="Only these, comma-separated.  [default: all]")
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(
            help="PSNR that every component has to reach: 40dB.  [default: that of the precision]"
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="For INT8: folder of 'sdconv calibrate'.  [default: INT8 is left out]"),
    ] = None,
    batch: Annotated[int | None, typer.Option("-b", "--batch", help="UNet batch.")] = None,
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="Run a chip's cells on its emulator, which takes minutes each, and not in the "
            "compiler's interpreter.",
        ),
    ] = False,
    emulator_budget: Annotated[
        float, typer.Option(min=0, help="Minutes on a chip's emulator for one cell and size.")
    ] = 10.0,
) -> None:
    """Compile and judge every precision of every component; recommend the cheapest good ones.

    Quality, bytes and the target's own latency side by side; what was made before is reused. The
    exit code is 1 where a component reaches the floor in no precision.
    """
    from converter.sizes import parse_sizes
    from sdconv.console import out, progress_bar
    from validate.matrix.base import MatrixRequest
    from validate.matrix.matrix import make_matrix
    from validate.matrix.report import print_matrix, write_matrix

    request = MatrixRequest(
        bundle=bundle,
        target=target,
        sizes=parse_sizes(sizes),
        output=output,
        components=_listed("--components", components),
        precisions=_listed("--precisions", precisions),
        floor=None if floor is None else parse_floor(floor),
        calibration=calibration,
        batch=batch,
        emulator_budget=emulator_budget * 60,
        emulate=emulate,
    )
    with progress_bar() as progress:
        made = make_matrix(request, progress)
    print_matrix(made, out)
    for path in write_matrix(made):
        out.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)
    if made.lacking:
        raise typer.Exit(1)
    path = write_recipe(made)
    out.print(f"recipe: {path}", highlight=False, markup=False, soft_wrap=True)


def write_recipe(matrix: Matrix) -> Path:
    """Write what is recommended as a recipe beside the reports; see 'sdconv build'.

    Raises InputError for a bundle that does not say what it was made from.
    """
    from converter.bundle import Bundle
    from converter.files import replacing
    from sdconv.recipe.requests import of_compile
    from sdconv.recipe.writing import recipe_yaml

    path = matrix.request.output / "recipe.yaml"
    recipe = of_compile([matrix.recommended], Bundle.load(matrix.request.bundle))
    with replacing(path) as work:
        work.write_text(recipe_yaml(recipe))
    return path


def _listed(option: str, text: str | None) -> tuple[str, ...] | None:
    from converter.errors import InputError

    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise InputError(f"{option}: nothing is named: leave it out for all that there are")
    return words


def parse_floor(text: str) -> float:
    """Read ``40dB`` or ``40``; raises InputError for anything else."""
    from converter.errors import InputError
    from converter.parsing import finite_number

    value = finite_number(text.lower().removesuffix("db").strip())
    if value is None or value <= 0:
        raise InputError(f"--floor {text}: write a PSNR in decibels, such as 40dB")
    return value
