"""Compile a bundle: every component at every size becomes an artifact of one target."""

import importlib.metadata
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from converter.architecture import Architecture
from converter.bundle import Bundle, BundleComponent
from converter.errors import InputError
from converter.families.controlnet import kind_of
from converter.files import sha256_of
from converter.interface_profile import InterfaceProfile
from converter.profiles import get_profile
from converter.progress import Event, Progress, silent
from converter.sizes import Size
from targets.at_once import each
from targets.base import EFFORTS, Artifact, CompileJob, QuantizeTable, Skeleton, Target
from targets.calibration import command, find_data
from targets.manifest import MANIFEST_FILE, Manifest
from targets.one_file import in_one_file
from targets.registry import get_target


@dataclass(frozen=True)
class CompileRequest:
    """What to compile. `precision` overrides the target's choice per component.

    `batch` None takes the batch that the bundle was exported for. `components` None takes all.
    `calibration` is a folder of 'sdconv calibrate', `quantize_tables` are files by component.
    `static` asks for a file a size from targets whose files serve all sizes.
    `at_once` is how many jobs may be compiled at a time; it changes nothing in what comes out.
    """

    bundle: Path
    target: str
    sizes: tuple[Size, ...]
    output: Path = Path("artifacts")
    precision: Mapping[str, str] = field(default_factory=dict)
    batch: int | None = None
    components: tuple[str, ...] | None = None
    effort: str = "normal"
    calibration: Path | None = None
    quantize_tables: Mapping[str, Path] = field(default_factory=dict)
    static: bool = False
    at_once: int = 1

    def command(self) -> list[str]:
        """The command line that makes the same request."""
        words = ["sdconv", "compile", "-n", str(self.bundle), "--target", self.target]
        words += ["--sizes", ",".join(map(str, self.sizes))] if self.sizes else []
        words += ["-o", str(self.output)]
        if self.precision:
            words += ["--precision", ",".join(f"{c}={p}" for c, p in self.precision.items())]
        for component, table in self.quantize_tables.items():
            words += ["--quantize-table", f"{component}={table}"]
        if self.calibration is not None:
            words += ["--calibration", str(self.calibration)]
        if self.batch is not None:
            words += ["-b", str(self.batch)]
        if self.effort != "normal":
            words += ["--effort", self.effort]
        if self.static:
            words.append("--static")
        if self.components is not None:
            words += ["--components", ",".join(self.components)]
        return words


def parse_precisions(text: str) -> dict[str, str]:
    """Read ``unet=f16,vae_decoder=bf16``; raises InputError for anything else."""
    chosen = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        component, equals, precision = part.partition("=")
        if not equals or not component or not precision:
            raise InputError(
                f"precision {part!r} is not COMPONENT=PRECISION: write for example unet=f16"
            )
        chosen[component.strip()] = precision.strip().lower()
    return chosen


def parse_tables(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``unet=table.txt``; raises InputError for anything else."""
    tables = {}
    for text in texts:
        component, equals, file = text.partition("=")
        if not equals or not component or not Path(file).is_file():
            raise InputError(
                f"quantize table {text!r} is not COMPONENT=FILE with a file that is there: write "
                "for example unet=table.txt"
            )
        tables[component] = Path(file)
    return tables


def compile_bundle(request: CompileRequest, progress: Progress = silent) -> Manifest:
    """Compile what is not compiled yet, bind it, write the manifest.

    Raises InputError before anything is written, ToolchainError when a compiler fails.
    """
    bundle = Bundle.load(request.bundle)
    target = get_target(request.target)
    jobs = _calibrated(jobs_of(request, bundle, target), request, bundle, target)
    before = _earlier(request, bundle)
    _say_profile(bundle, target, progress)
    artifacts = _built(request, jobs, bundle, target, progress)
    _say_dropped(request, before, artifacts, progress)
    manifest = _manifest(request, bundle, target, artifacts, before)
    manifest.save()
    return manifest


def recompile(
    request: CompileRequest, manifest: Manifest, target: Target, progress: Progress = silent
) -> Manifest:
    """Compile the request's components once more; they take the place of those in the manifest.

    Whatever else lies in its folder stays. Raises as `compile_bundle` does.
    """
    bundle = Bundle.load(request.bundle)
    jobs = _calibrated(jobs_of(request, bundle, target), request, bundle, target)
    made = _built(request, jobs, bundle, target, progress)
    kept = [a for a in manifest.artifacts if (a.target, a.component) not in
            {(target.name, component) for component in jobs}]  # fmt: skip
    words = [*manifest.commands[target.name]]
    for component, table in request.quantize_tables.items():
        words += ["--quantize-table", f"{component}={table}"]
    commands = {**manifest.commands, target.name: words}
    changed = replace(manifest, artifacts=[*kept, *made], commands=commands)
    changed.save()
    return changed


def _built(
    request: CompileRequest,
    jobs: Mapping[str, Sequence[CompileJob]],
    bundle: Bundle,
    target: Target,
    progress: Progress,
) -> list[Artifact]:
    """Compile and bind every job of the request, into its folder."""
    weights = {component: bundle.weights(component) for component in jobs}
    every = [(component, job) for component, mine in jobs.items() for job in mine]
    made = each(
        [partial(target.compile, job, weights[component], progress) for component, job in every],
        request.at_once,
    )
    skeletons: dict[str, list[Skeleton]] = {component: [] for component in jobs}
    for (component, _), skeleton in zip(every, made, strict=True):
        skeletons[component].append(skeleton)
    artifacts: list[Artifact] = []
    for component, compiled in skeletons.items():
        own = weights[component]
        if target.needs_weights_file:
            own = in_one_file(component, own, jobs[component][0].graph, progress)
        stage = f"bind {component}"
        progress(Event(stage, 0.0))
        artifacts += target.bind(compiled, own, request.output, progress)
        progress(Event(stage, 1.0))
    artifacts = target.complete(bundle, artifacts, request.output)
    _check_unchanged(bundle, jobs)
    return artifacts


def find_skeletons(request: CompileRequest) -> list[Path]:
    """The cache entries that this compilation would reuse; raises InputError naming others."""
    bundle = Bundle.load(request.bundle)
    target = get_target(request.target)
    wanted = _calibrated(jobs_of(request, bundle, target), request, bundle, target)
    found = {
        job: target.find_skeleton(job, bundle.components[name].weights_key)
        for name, jobs in wanted.items()
        for job in jobs
    }
    missing = [job.label for job, path in found.items() if path is None]
    if missing:
        command = shlex.join(replace(request, components=None).command())
        raise InputError(f"not compiled yet: {', '.join(missing)}: run '{command}' first")
    return [path for path in found.values() if path is not None]


def jobs_of(request: CompileRequest, bundle: Bundle, target: Target) -> dict[str, list[CompileJob]]:
    """Every job by component, after checking everything that a user can have wrong."""
    names = request.components or tuple(bundle.components)
    for name in (*names, *request.precision, *request.quantize_tables):
        if name not in bundle.components:
            raise InputError(
                f"no component {name!r} in {bundle.folder}: it has {', '.join(bundle.components)}"
            )
    for component, precision in request.precision.items():
        if precision not in target.precisions:
            raise InputError(
                f"{component}={precision}: target {target.name} has "
                f"{', '.join(target.precisions)}: choose one of these"
            )
    if request.quantize_tables and not target.takes_tables:
        raise InputError(f"target {target.name} takes no --quantize-table: leave it out")
    if request.at_once < 1:
        raise InputError(f"jobs {request.at_once}: it must be at least 1")
    if request.effort not in EFFORTS:
        raise InputError(f"unknown effort {request.effort!r}: choose one of {', '.join(EFFORTS)}")
    architecture = Architecture.from_json(bundle.architecture)
    get_profile(bundle.profile).check_sizes(architecture, request.sizes)
    batch = bundle.batch if request.batch is None else request.batch
    if batch < 1:
        raise InputError(f"batch {batch}: it must be at least 1")
    return {
        name: list(_component_jobs(bundle, bundle.components[name], request, target, batch))
        for name in names
    }


def _component_jobs(
    bundle: Bundle,
    component: BundleComponent,
    request: CompileRequest,
    target: Target,
    batch: int,
) -> Iterator[CompileJob]:
    profile = get_profile(bundle.profile)
    usual = default_precision(profile, target, component.name)
    file = profile.file(component.name, Architecture.from_json(bundle.architecture))
    if file is not None and target.name != profile.target:
        file = f"{target.name}/{file}"
    batch = profile.batch_of(component.name, batch)
    path = request.quantize_tables.get(component.name)
    table = None if path is None else QuantizeTable(path, sha256_of(path))
    for size in request.sizes if component.interface.has_size else (None,):
        job = _job(bundle, component, size, batch, request.precision.get(component.name, usual))
        static = request.static or not target.serves_all_sizes
        yield replace(job, effort=request.effort, file=file, quantize_table=table, static=static)


def job_of(bundle: Bundle, artifact: Artifact) -> CompileJob:
    """The job that an artifact of this bundle was compiled by, in the usual effort.

    Without calibration data and tables of a user's, which the manifest does not have.
    """
    component = bundle.components[artifact.component]
    return _job(bundle, component, artifact.size, artifact.batch, artifact.precision)


def _job(
    bundle: Bundle, component: BundleComponent, size: Size | None, batch: int, precision: str
) -> CompileJob:
    return CompileJob(
        component=component.name,
        graph=(bundle.folder / component.graph).absolute(),
        graph_sha256=component.graph_sha256,
        input_shapes=tuple(component.interface.input_shapes(batch, size).items()),
        size=size,
        batch=batch,
        precision=precision,
    )


def default_precision(profile: InterfaceProfile, target: Target, component: str) -> str:
    """That of the consumer's own artifacts, where the target has it; else the target's choice."""
    usual = profile.precisions.get(kind_of(component))
    return usual if usual in target.precisions else target.default_precision(component)


def _calibrated(
    jobs: Mapping[str, Sequence[CompileJob]],
    request: CompileRequest,
    bundle: Bundle,
    target: Target,
) -> dict[str, list[CompileJob]]:
    """Give calibration data to the jobs that need them. Raises InputError where there are none."""

    def with_data(job: CompileJob) -> CompileJob:
        if not target.needs_calibration(job.precision, job.quantize_table):
            return job
        if request.calibration is None:
            made = command(bundle, job.size, job.batch, Path("calibration"))
            raise InputError(
                f"{job.label}: INT8 needs calibration data: run '{made}', then compile with "
                "--calibration calibration"
            )
        data = find_data(request.calibration, bundle, job.component, job.size, job.batch)
        return replace(job, calibration=data)

    return {component: [with_data(job) for job in mine] for component, mine in jobs.items()}


def _check_unchanged(bundle: Bundle, components: Iterable[str]) -> None:
    """Raise InputError when the bundle was exported again while it was compiled."""
    now = Bundle.load(bundle.folder).components
    changed = [name for name in components if now.get(name) != bundle.components[name]]
    if changed:
        raise InputError(
            f"{bundle.folder}: exported again while its {' and '.join(changed)} was compiled: run "
            "the same compile again"
        )


def _say_profile(bundle: Bundle, target: Target, progress: Progress) -> None:
    wanted = target.expected_profile
    runs_there = get_profile(bundle.profile).target == target.name
    if wanted is not None and bundle.profile != wanted and not runs_there:
        note = (
            f"the bundle's ports follow profile {bundle.profile}; hosts of {target.name} expect "
            f"{wanted}: export with --profile {wanted} to run in them unchanged"
        )
        progress(Event("profile", 1.0, note))


def _earlier(request: CompileRequest, bundle: Bundle) -> Manifest | None:
    """What an earlier run left in the output folder, read before any work is done."""
    if not (request.output / MANIFEST_FILE).exists():
        return None
    before = Manifest.load(request.output)
    return replace(before, artifacts=[a for a in before.artifacts if _is_of(a, bundle)])


def _say_dropped(
    request: CompileRequest,
    before: Manifest | None,
    artifacts: Sequence[Artifact],
    progress: Progress,
) -> None:
    """Name what the folder held for the same target and will not hold any more."""
    made = {(a.component, a.size) for a in artifacts}
    dropped = [
        a.label
        for a in (before.artifacts if before is not None else ())
        if a.target == request.target and (a.component, a.size) not in made
    ]
    if dropped:
        note = (
            f"{request.output}: no longer listed, because this run did not name it: "
            f"{', '.join(dropped)} (--add-sizes keeps what is there)"
        )
        progress(Event("manifest", 1.0, note))


def _manifest(
    request: CompileRequest,
    bundle: Bundle,
    target: Target,
    artifacts: list[Artifact],
    before: Manifest | None,
) -> Manifest:
    versions = {p: importlib.metadata.version(p) for p in ("sdconv", "onnx", "onnxruntime")}
    commands: dict[str, Sequence[str]] = {target.name: request.command()}
    kept: list[Artifact] = []
    if before is not None:
        kept = [a for a in before.artifacts if a.target != target.name]
        names = {a.target for a in kept}
        commands = {**{n: c for n, c in before.commands.items() if n in names}, **commands}
        versions = {**before.versions, **versions}
    return Manifest(
        folder=request.output,
        bundle=bundle.folder.absolute(),
        interfaces={name: c.interface for name, c in bundle.components.items()},
        artifacts=[*kept, *artifacts],
        commands=commands,
        versions=versions,
    )


def _is_of(artifact: Artifact, bundle: Bundle) -> bool:
    """Whether an artifact was made from the weights that the bundle holds now."""
    component = bundle.components.get(artifact.component)
    return component is not None and component.weights_key == artifact.weights_key
