"""`sdconv build`: everything that a recipe says, from checkpoint to verdict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from converter.progress import Progress
    from sdconv.recipe.recipe import Recipe
    from validate.base import Report
    from validate.validate import ValidateRequest


def build(
    recipe: Annotated[
        Path, typer.Argument(help="YAML file; every report has the one that makes it again.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of bundle and artifacts, not the recipe's."),
    ] = None,
) -> None:
    """Export, compile for every target and validate, as a recipe says.

    What is there already is reused. The exit code is that of 'sdconv validate'.
    """
    from sdconv.console import out, progress_bar
    from sdconv.model_options import LocalFiles
    from sdconv.recipe.reading import read_recipe
    from sdconv.validate import finish

    read = read_recipe(recipe)
    folder = output or recipe.parent / read.output
    with progress_bar() as progress:
        files = LocalFiles(read.export.variant, progress)
        judged = run_recipe(read, folder, partial(files.below, recipe.parent), progress)
    out.print(f"built: {folder}", highlight=False, markup=False, soft_wrap=True)
    if judged is not None:
        finish(*judged)


BUNDLE, ARTIFACTS = "bundle", "artifacts"
"""Where things lie below the recipe's output."""


def run_recipe(
    recipe: Recipe, folder: Path, local: Callable[[str], Path], progress: Progress
) -> tuple[Report, ValidateRequest] | None:
    """Export, compile, validate; None where nothing is compiled.

    Raises InputError before anything is written for what the recipe cannot mean.
    """
    from dataclasses import replace

    from converter.export import export
    from sdconv.recipe.requests import to_compile, to_export, to_validate
    from sdconv.recipe.writing import recipe_yaml
    from targets.compile import compile_bundle
    from validate.validate import validate

    request = to_export(recipe, folder / BUNDLE, local)
    compiled = [
        to_compile(one, folder / BUNDLE, folder / ARTIFACTS, local) for one in recipe.compile
    ]
    bundle = export(request, progress)
    for one in compiled:
        compile_bundle(one, progress)
    if not compiled:
        return None
    asked = to_validate(recipe.validate, bundle, folder / ARTIFACTS, local)
    return validate(replace(asked, recipe=recipe_yaml(recipe)), progress), asked
