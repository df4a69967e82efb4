"""The work of one job: fetch, export, compile, validate, by the calls of the command line."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import export
from converter.files import link_or_copy
from converter.progress import Event, Progress
from converter.torchscript import export_torchscript
from runtime.advice import sampling_options
from runtime.calibration import CalibrationRequest, calibrate
from runtime.sampling import PictureRequest
from sdconv.page.deliverables import bundle_files, described, made_files
from sdconv.page.fetching import fetch_missing
from sdconv.page.forecast import foresee
from sdconv.page.jobs import Job, Jobs
from sdconv.page.limits import Limits
from sdconv.page.order import COMPILE, EXPORT, Order
from sdconv.page.requests import BUNDLE, Requests, requests_of
from sdconv.page.run_folder import Outcome, RunFolder, StepProgress
from sdconv.page.sources import Sources
from sdconv.page.workspace import Workspace
from targets.compile import CompileRequest, compile_bundle
from validate.prompts import PROMPTS
from validate.validate import validate

BUNDLE_OF_JOB = "job:"
"""Begins the bundle of an order that goes on with the export of another job."""


def run_job(
    workspace: Workspace, run: RunFolder, limits: Limits, progress: StepProgress
) -> Outcome:
    """Do everything that a job asks for; raises InputError or ToolchainError.

    What an earlier run in the same folder left whole is reused.
    """
    jobs, sources = Jobs(workspace), Sources(workspace)
    job = jobs.get(run.path.name)
    if job is None:
        raise InputError("the job's record is damaged: order it again")
    fetch_missing(replace(sources, job=run.path), job.order, limits, progress)
    if job.order.steps == COMPILE:
        take_bundle(jobs, job, partial(progress, "bundle"))
    elif not job.planned():  # it could not be looked at before everything was fetched
        _, forecast = foresee(job.order, job.locate(sources), job.folder)
        job.save_plan(forecast.profile, forecast.stages())
    requests = requests_of(job.settled, job.locate(sources), job.folder)
    if requests.export is not None:
        bundle = export(requests.export, partial(progress, "export"))
        if job.order.format != "onnx":
            export_torchscript(bundle, partial(progress, "torchscript"))
    if job.order.steps == EXPORT:
        return Outcome("exported", "the export is whole", files=described(bundle_files(job)))
    return _compile(job, requests, progress)


def _compile(job: Job, requests: Requests, progress: StepProgress) -> Outcome:
    bundle = Bundle.load(job.folder / BUNDLE)
    if (first := requests.calibrated) is not None:
        calibrate(_calibration(bundle, first), partial(progress, "calibrate"))
    for compiling in requests.compiles:
        compile_bundle(compiling, partial(progress, f"compile {compiling.target}"))
    assert requests.validate is not None, "whoever compiles judges"
    judging = replace(requests.validate, picture=_picture(bundle, job.order))
    report = validate(judging, partial(progress, "validate"))
    files = described(made_files(job))
    return Outcome("judged", f"{report.sentence}.", report.verdict.value, files)


def _picture(bundle: Bundle, order: Order) -> PictureRequest | None:
    if not order.prompt:
        return None
    chosen, _ = sampling_options(bundle.sampling)
    return PictureRequest(order.prompt, **chosen)


def _calibration(bundle: Bundle, compiling: CompileRequest) -> CalibrationRequest:
    """As `sdconv calibrate` makes it when nothing is said but the sizes."""
    assert compiling.calibration is not None
    chosen, _ = sampling_options(bundle.sampling)
    return CalibrationRequest(
        bundle=compiling.bundle,
        prompts=tuple(filter(None, PROMPTS)),
        sizes=compiling.sizes,
        sampling=PictureRequest("", **chosen),
        output=compiling.calibration,
    )


def bundle_of(jobs: Jobs, order: Order, visible: Callable[[Job], bool]) -> Path:
    """The bundle that an order goes on with; InputError unless there is a whole one to be seen."""
    if not order.bundle.startswith(BUNDLE_OF_JOB):
        folder = jobs.workspace.find(order.bundle) if order.bundle else None
    else:
        other = jobs.get(order.bundle.removeprefix(BUNDLE_OF_JOB))
        folder = None if other is None or not visible(other) else other.folder / BUNDLE
    if folder is None:
        raise InputError("no export is chosen to go on with: choose one of yours")
    return Bundle.load(folder).folder


def take_bundle(jobs: Jobs, job: Job, progress: Progress) -> None:
    """Put the bundle that a job goes on with into its folder: hard links, where the disk can."""
    source = bundle_of(jobs, job.order, lambda other: other.owner == job.owner)
    own = job.folder / BUNDLE
    if own.is_dir():
        return
    work = own.with_name(".bundle.partial")
    shutil.rmtree(work, ignore_errors=True)
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        progress(Event("bundle", 0.0))
        link_or_copy(file, work / file.relative_to(source))
    work.rename(own)
    progress(Event("bundle", 1.0))
