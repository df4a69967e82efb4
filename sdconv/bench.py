"""The verb `bench`: how long artifacts take, predicted for chips and measured on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import picture_options as options

if TYPE_CHECKING:
    from targets.manifest import Manifest


def bench(
    artifacts: options.Artifacts,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Only this one's.  [default: all]")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Measured runs of an artifact.")] = 5,
    bundle: options.MovedBundle = None,
    scheduler: options.SchedulerName = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Tell how long artifacts and pictures take.

    For a chip that is what its compiler predicted; nothing is run. What runs on this machine is
    run and measured, with one run more to warm up.
    """
    from json import dumps

    from runtime.advice import sampling_options
    from runtime.sampling import PictureRequest
    from sdconv.console import out, progress_bar
    from targets.manifest import Manifest
    from validate.latency import predicted_latency
    from validate.report.json_report import latency_to_json, measured_to_json
    from validate.report.terminal import print_latency, print_measured
    from validate.timing import measured_latency

    manifest = Manifest.load(artifacts)
    found = manifest.load_bundle(bundle)
    if target is not None:
        manifest = manifest.of_target(target)
    _refuse_unknown(manifest)
    chosen, _ = sampling_options(found.sampling, scheduler, steps, guidance)
    request = PictureRequest("", **chosen)
    predicted = predicted_latency(manifest, found, request)
    with progress_bar() as progress:
        measured = measured_latency(manifest, found, request, repeat, progress)
    if json:
        told = {
            "schema": 1,
            "predicted": None if predicted is None else latency_to_json(predicted),
            "measured": None if measured is None else measured_to_json(measured),
        }
        typer.echo(dumps(told, indent=1))
        return
    if predicted is not None:
        print_latency(predicted, out)
    if measured is not None:
        print_measured(measured, out)


def _refuse_unknown(manifest: Manifest) -> None:
    """Raise InputError for what can be neither predicted nor run here."""
    from converter.errors import InputError

    unknown = [a for a in manifest.artifacts if a.chip is not None and a.predicted_ms is None]
    if unknown:
        raise InputError(
            f"{manifest.folder}: nothing is predicted for {unknown[0].label} on "
            f"{unknown[0].chip}, which does not run here: compile it again, or choose another "
            "--target"
        )
