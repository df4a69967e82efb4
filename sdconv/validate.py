"""The verb `validate`: compare artifacts with a CPU fp32 reference and say whether they agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import model_options
from sdconv import picture_options as options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from validate.base import Level, Report
    from validate.validate import ValidateRequest


EmulatorBudget = Annotated[
    float, typer.Option(min=0, help="Minutes on a chip's emulator for one artifact or picture.")
]
Levels = Annotated[
    str | None,
    typer.Option(
        "--level",
        help="Only these, comma-separated: export, component, layer, trajectory, picture.  "
        "[default: export, component, and with --prompt trajectory and picture]",
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="Also draw this with every target, and compare step by step and as pictures; "
        "may be repeated.",
    ),
]
RecogniserFile = Annotated[
    Path | None,
    typer.Option(help="Python file whose function says whether a picture shows the prompt."),
]
Rescue = Annotated[
    bool,
    typer.Option(
        "--rescue",
        help="Compile what fails again, keeping as few operations as possible in a higher "
        "precision.",
    ),
]
Reduce = Annotated[
    bool,
    typer.Option(
        "--reduce",
        help="Shrink the graph of what fails to the smallest part that still does, and write a "
        "folder to send to whoever can mend it.",
    ),
]


def validate(
    artifacts: options.Artifacts,
    report: Annotated[
        Path | None, typer.Option(help="HTML report.  [default: ARTIFACTS/report.html]")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="JSON report.  [default: ARTIFACTS/report.json]")
    ] = None,
    bundle: options.MovedBundle = None,
    emulator_budget: EmulatorBudget = 10.0,
    judge_only: Annotated[
        bool, typer.Option("--judge-only", help="Judge saved outputs again; run nothing.")
    ] = False,
    level: Levels = None,
    prompt: Prompts = None,
    recogniser: RecogniserFile = None,
    attribute: Annotated[
        bool,
        typer.Option("--attribute", help="Always tell what each component costs of a picture."),
    ] = False,
    rescue: Rescue = False,
    reduce: Reduce = False,
    baseline: Annotated[
        Path | None, typer.Option(help="Earlier report.json: show what got better and worse.")
    ] = None,
    negative: options.Negative = None,
    scheduler: options.SchedulerName = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    noise: options.Noise = None,
    early: options.Early = 0,
    hint: options.Hints = None,
    print_recipe: model_options.PrintRecipe = False,
) -> None:
    """Run every artifact and the fp32 reference on the same inputs, measure, judge, report.

    Exit code 1 if any artifact does not agree with the reference, or is worse than in --baseline.
    What was not run makes the verdict "incomplete", with exit code 0 and a warning. A folder that
    --reduce wrote is run again instead, with exit code 1 while it fails.
    """
    from validate.reduce.repro import REPRO_FILE
    from validate.validate import ValidateRequest

    if (artifacts / REPRO_FILE).is_file():
        reproduce(artifacts)
        return
    picture, prompts = None, tuple(prompt or ())
    levels = parse_levels(level, drawing=bool(prompts))
    mending = [o for o, given in (("--rescue", rescue), ("--reduce", reduce)) if given]
    seeing = [o for o, given in (("--attribute", attribute), ("--recogniser", recogniser)) if given]
    check_options(levels, mending, seeing, judge_only=judge_only, drawing=bool(prompts))
    if prompts:
        chosen = (prompts[0], negative, scheduler, steps, guidance, seed, hint, noise, early)
        picture = options.picture_request(artifacts, bundle, *chosen, say=not print_recipe)
    request = ValidateRequest(
        artifacts=artifacts,
        report=report,
        json=json,
        bundle=bundle,
        emulator_budget=emulator_budget * 60,
        judge_only=judge_only,
        picture=picture,
        prompts=prompts[1:],
        levels=levels,
        recogniser=recogniser,
        attribute=attribute,
        rescue=rescue,
        baseline=baseline,
    )
    if print_recipe:
        typer.echo(_recipe_of(request), nl=False)
    else:
        _run(request, reduce=reduce)


def _run(request: ValidateRequest, *, reduce: bool) -> None:
    from dataclasses import replace

    from converter.errors import InputError
    from sdconv.console import progress_bar
    from validate.reduce.folder import reduce_all
    from validate.validate import validate as run_validation

    try:
        recipe = _recipe_of(request)
    except InputError:  # of an earlier version, which did not say what it was made from
        recipe = ""
    with progress_bar() as progress:
        outcome = run_validation(replace(request, recipe=recipe), progress)
        reductions = reduce_all(outcome, request, progress) if reduce else []
    for reduction in reductions:
        where = "" if reduction.folder is None else f": {reduction.folder}"
        typer.echo(f"{reduction.label}: {reduction.sentence}{where}")
    finish(outcome, request)


def _recipe_of(request: ValidateRequest) -> str:
    from sdconv.recipe.requests import of_validate
    from sdconv.recipe.writing import recipe_yaml

    return recipe_yaml(of_validate(request))


def reproduce(folder: Path) -> None:
    """Run a folder of --reduce again; exit code 1 while it fails."""
    from validate.base import Verdict
    from validate.reduce.repro import run_repro

    repro, ruling = run_repro(folder)
    typer.echo(f"{repro.label}, reduced: {ruling.verdict}: {ruling.sentence}")
    if ruling.verdict is Verdict.FAIL:
        raise typer.Exit(1)


def finish(outcome: Report, request: ValidateRequest) -> None:
    """Print a report and where it lies; the exit code is the verdict's."""
    from sdconv.console import err, out
    from validate.base import Verdict
    from validate.report.terminal import print_report

    print_report(outcome, out)
    for path in (request.report_path, request.json_path):
        out.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)
    if outcome.verdict is Verdict.INCOMPLETE:
        err.print("warning: not everything was run, so this is not a pass", style="yellow")
    regressions = [] if outcome.comparison is None else outcome.comparison.regressions
    if outcome.verdict is Verdict.FAIL or regressions:
        raise typer.Exit(1)


def check_options(
    levels: tuple[Level, ...] | None,
    mending: Sequence[str],
    seeing: Sequence[str],
    *,
    judge_only: bool,
    drawing: bool,
) -> None:
    """Raise InputError for options that would have nothing to do.

    `mending` are those that work on what fails, `seeing` those that look at pictures.
    """
    from converter.errors import InputError
    from validate.base import TOGETHER, Level

    if mending and judge_only:
        raise InputError(f"{mending[0]} runs and compiles, --judge-only does not: leave one out")
    if mending and levels is not None and Level.COMPONENT not in levels:
        raise InputError(f"{mending[0]} works on components that fail: add component to --level")
    if seeing and not (drawing and set(levels or TOGETHER) & set(TOGETHER)):
        raise InputError(f"{seeing[0]}: there is nothing to draw: say what with --prompt")


def parse_levels(text: str | None, *, drawing: bool) -> tuple[Level, ...] | None:
    """Read ``component,layer``; raises InputError for what is none, or cannot be drawn."""
    from converter.errors import InputError
    from validate.base import TOGETHER, Level

    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in [*Level]]
    if unknown or not names:
        raise InputError(f"--level {text}: choose of {', '.join(Level)}")
    levels = tuple(Level(name) for name in names)
    drawn = [level for level in levels if level in TOGETHER]
    if drawn and not drawing:
        raise InputError(f"--level {drawn[0]}: there is nothing to draw: say what with --prompt")
    return levels
