"""The verb `validate`: compare artifacts with a CPU fp32 reference and say whether they agree."""

from pathlib import Path
from typing import Annotated

import typer

from sdconv import picture_options as options


def validate(
    artifacts: options.Artifacts,
    report: Annotated[
        Path | None, typer.Option(help="HTML report.  [default: ARTIFACTS/report.html]")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="JSON report.  [default: ARTIFACTS/report.json]")
    ] = None,
    bundle: options.MovedBundle = None,
    emulator_budget: Annotated[
        float,
        typer.Option(min=0, help="Minutes on a chip's emulator for one artifact or picture."),
    ] = 10.0,
    judge_only: Annotated[
        bool, typer.Option("--judge-only", help="Judge saved outputs again; run nothing.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option(help="Also draw this with every target, and compare pictures.")
    ] = None,
    negative: options.Negative = None,
    scheduler: options.SchedulerName = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    noise: options.Noise = None,
    hint: options.Hints = None,
) -> None:
    """Run every artifact and the fp32 reference on the same inputs, measure, judge, report.

    Exit code 1 if any artifact does not agree with the reference. An artifact that was not run
    makes the verdict "incomplete", with exit code 0 and a warning.
    """
    from sdconv.console import err, out, progress_bar
    from validate.base import Verdict
    from validate.report.terminal import print_report
    from validate.validate import ValidateRequest
    from validate.validate import validate as run_validation

    picture = None
    if prompt is not None:
        picture = options.picture_request(
            artifacts, bundle, prompt, negative, scheduler, steps, guidance, seed, hint, noise
        )
    request = ValidateRequest(
        artifacts=artifacts,
        report=report,
        json=json,
        bundle=bundle,
        emulator_budget=emulator_budget * 60,
        judge_only=judge_only,
        picture=picture,
    )
    with progress_bar() as progress:
        outcome = run_validation(request, progress)
    print_report(outcome, out)
    for path in (request.report_path, request.json_path):
        out.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)
    if outcome.verdict is Verdict.INCOMPLETE:
        err.print("warning: not everything was run, so this is not a pass", style="yellow")
    if outcome.verdict is Verdict.FAIL:
        raise typer.Exit(1)
