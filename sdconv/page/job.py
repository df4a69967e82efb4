"""One conversion asked for on the page: checked, turned into the requests of the verbs, and run."""

import shlex
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from converter.adapters.choice import AdapterChoice
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.files import replacing, require_space
from converter.inspection import inspect
from converter.profiles import get_profile
from converter.progress import Event
from converter.sizes import Size, parse_sizes
from sdconv.page.workspace import Workspace
from targets.compile import CompileRequest, compile_bundle, parse_precisions
from targets.manifest import MANIFEST_FILE, Manifest
from targets.registry import get_target
from validate.base import EMULATOR_BUDGET, Report
from validate.validate import ValidateRequest, validate

STEPS = ("export", "compile", "validate")

StepProgress = Callable[[str, Event], None]
"""Told the step, one of STEPS, and the event inside it."""

ZIP_FILE = "artifacts.zip"


@dataclass(frozen=True)
class Form:
    """What a visitor filled in, nothing checked. Files are uploads or names below the root.

    `scales` has at least one entry for each of `loras`.
    """

    checkpoint: str | None
    target: str | None
    profile: str
    sizes: str
    loras: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    precision: str = ""
    batch: int | None = None
    allow_unused: bool = False
    emulator_minutes: float = EMULATOR_BUDGET / 60


@dataclass(frozen=True)
class Job:
    """The three requests that a form stands for, all inside one folder."""

    folder: Path
    export: ExportRequest
    compile: CompileRequest
    validate: ValidateRequest

    @property
    def artifacts(self) -> Path:
        """The folder of everything that was made to be taken away."""
        return self.compile.output

    def commands(self) -> list[str]:
        """The command lines that do the same; `sdconv compile` validates what it made."""
        compiling = self.compile.command()
        if self.validate.emulator_budget != EMULATOR_BUDGET:
            compiling += ["--emulator-budget", f"{self.validate.emulator_budget / 60:g}"]
        return [shlex.join(words) for words in (self.export.command(), compiling)]


@dataclass(frozen=True)
class Outcome:
    """What a job came to."""

    manifest: Manifest
    report: Report
    html: str


def plan_job(form: Form, workspace: Workspace) -> Job:
    """Check everything that can be checked in a second, then make the job's folder.

    Raises InputError or ToolchainError, having written nothing.
    """
    if not form.checkpoint:
        raise InputError("no checkpoint is chosen: upload one, or choose a file on the server")
    if not form.target:
        raise InputError("no target is chosen: choose one that is ready")
    checkpoint = workspace.find(form.checkpoint)
    adapters = _adapters(form, workspace)
    sizes = _checked_sizes(form, checkpoint)
    precision = parse_precisions(form.precision)
    get_target(form.target).check_ready()
    folder = workspace.new_job()
    bundle, artifacts = folder / "bundle", folder / "artifacts"
    return Job(
        folder=folder,
        export=ExportRequest(
            checkpoint=workspace.keep(checkpoint, folder),
            output=bundle,
            adapters=tuple(replace(a, path=workspace.keep(a.path, folder)) for a in adapters),
            profile=form.profile,
            batch=form.batch,
            allow_unused=form.allow_unused,
        ),
        compile=CompileRequest(bundle, form.target, sizes, artifacts, precision),
        validate=ValidateRequest(artifacts, emulator_budget=form.emulator_minutes * 60),
    )


def _adapters(form: Form, workspace: Workspace) -> list[AdapterChoice]:
    if len(form.loras) > len(form.scales):
        raise InputError(
            f"{len(form.loras)} LoRAs: this page takes {len(form.scales)} at once; "
            "'sdconv export' takes any number"
        )
    adapters = []
    for name, scale in zip(form.loras, form.scales, strict=False):
        path = workspace.find(name)
        if (kind := inspect(path).kind) != "lora":
            raise InputError(
                f"{path.name}: a {kind} file, where a LoRA was expected: remove it from the LoRAs"
            )
        adapters.append(AdapterChoice(path, scale))
    return adapters


def _checked_sizes(form: Form, checkpoint: Path) -> tuple[Size, ...]:
    """The sizes, checked now: `compile_bundle` would refuse them after a minute of exporting."""
    sizes = parse_sizes(form.sizes)
    architecture = inspect(checkpoint).architecture
    if architecture is not None:  # what is no checkpoint of a known family, `export` explains
        get_profile(form.profile).check_sizes(architecture, sizes)
    return sizes


def run_job(job: Job, progress: StepProgress) -> Outcome:
    """Export, compile, validate. Raises what these raise."""
    export(job.export, partial(progress, "export"))
    manifest = compile_bundle(job.compile, partial(progress, "compile"))
    report = validate(job.validate, partial(progress, "validate"))
    return Outcome(manifest, report, job.validate.report_path.read_text())


def deliverables(job: Job) -> Mapping[str, Path]:
    """Every file to take away, by its name inside the artifacts' folder; no saved arrays."""
    manifest = Manifest.load(job.artifacts)
    names = [name for a in manifest.artifacts for name in (a.path, *a.files)]
    names += [MANIFEST_FILE, job.validate.report_path.name, job.validate.json_path.name]
    return {name: job.artifacts / name for name in dict.fromkeys(names)}


def pack(job: Job) -> Path:
    """Write all deliverables into one zip beside the artifacts, not compressed: weights are noise.

    Raises InputError when the disk is too full.
    """
    files = deliverables(job)
    packed = job.folder / ZIP_FILE
    require_space(job.folder, sum(path.stat().st_size for path in files.values()), "the zip")
    with replacing(packed) as work, zipfile.ZipFile(work, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            archive.write(path, name)
    return packed
