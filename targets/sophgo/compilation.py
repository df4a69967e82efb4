"""graph -> skeleton, or graph + weights -> bmodel: the vendor's programs, and what is kept.

A skeleton is compiled with placeholders, and its weight region is cut out once it is known where
each weight belongs. Where that cannot be learned, `UNBOUND_FILE` says why.
"""

import gzip
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import SIGKILL

import numpy as np
import onnx_ir as ir

from converter.cost import Cost
from converter.files import require_space
from converter.progress import Event, Progress
from converter.stream import file_size
from passes.linked_weights import read_graph
from passes.weights import weight_places
from targets import placeholders
from targets.base import CompileJob, ToolchainError
from targets.calibration import CalibrationData
from targets.machine import outgrown
from targets.processes import ChildFailedError, ChildStoppedError, run_logged
from targets.repro import keep_repro
from targets.sophgo.bmodel.cutting import cut_weights
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.reading import read_bmodel, stages, weights_of
from targets.sophgo.chips import Chip
from targets.sophgo.cost import compile_memory, disk_peak
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.packing import learning
from targets.sophgo.precisions import PRECISIONS
from targets.sophgo.record import PROFILE_FILE, StageRecord
from targets.sophgo.tables import CALIBRATION_TABLE, QUANTIZE_TABLE, SOURCES, write_tables
from targets.sophgo.toolchain import TpuMlir
from targets.turns import memory_for

IMPORTER = Path(__file__).with_name("inside") / "importer.py"
KERNELS = "PPL_CACHE_PATH"
"""Where the compiler builds kernels of its own for some chips; else in the user's home folder."""

TAPE = Path(__file__).with_name("inside") / "tape.py"

BMODEL_FILE = "model.bmodel"
UNBOUND_FILE = "unbound.txt"
TAPE_FILE = "placeholders"
LOG_FILE = "compile.log"

TOP_PASSES = ("--struct-optimize", "--shape-infer", "--canonicalize", "--extra-optimize")
"""What `mlir_opt_for_top` of the vendor's `mlir_shell.py` runs on a freshly imported graph."""


LARGER = (
    "end other programs, or compile on a larger machine and carry the result here with 'sdconv "
    "skeleton export' and 'import'"
)
"""What to do where memory does not suffice."""

SEARCH = {"normal": (), "high": ("--shape_secs_search_strategy", "2")}
"""How the vendor's layer grouping looks for the way to cut tensors, by effort."""


@dataclass(frozen=True)
class Step:
    """One program: its name in a user's words, its arguments, the fraction done after it.

    `milestones` is how often "[Success]" comes in its output, for the progress bar; `obsolete`
    names the files that nothing needs after it. In a program's place there may be a function of
    ours: `own` is called with the working folder and with what it tells its fraction done.
    """

    name: str
    argv: Sequence[str | Path]
    until: float
    milestones: int = 0
    obsolete: str = ""
    own: Callable[[Path, Callable[[float], None]], None] | None = None


def steps(
    toolchain: TpuMlir, chip: Chip, job: CompileJob, weights: Path, placeholders: int = 0
) -> list[Step]:
    """The way from `<component>.onnx` in the working folder to `model.bmodel` there.

    `weights` is made first, of so many `placeholders`, where there are any. What the
    job gives for calibration and as a table lies in the working folder already.
    """
    name, precision = job.component, PRECISIONS[job.precision]
    tape = Step(
        "making placeholder weights",
        [toolchain.python, TAPE, weights, str(placeholders)],
        until=0.02,
    )
    calibrating = Step("calibrating", (), until=0.5, own=partial(write_tables, job, weights))
    return [
        *((tape,) if placeholders else ()),
        Step(
            "importing the graph",
            [toolchain.python, IMPORTER, f"{name}.onnx", weights, name, f"{name}_origin.mlir"],
            until=0.2,
        ),
        Step(
            "optimising the graph",
            # The vendor starts this from inside the importer, whose memory would add to it.
            [
                toolchain.program("tpuc-opt"),
                f"{name}_origin.mlir",
                *TOP_PASSES,
                "-o",
                f"{name}.mlir",
            ],
            until=0.3,
            obsolete="*_origin*",
        ),
        *((calibrating,) if job.calibration else ()),
        Step(
            "compiling",
            # No test input: the vendor's comparison looks at 200 tensors and accepts far-off
            # values. What the result computes is judged by `validate` instead.
            [
                *(toolchain.python, toolchain.script("model_deploy.py"), "--mlir", f"{name}.mlir"),
                *("--quantize", precision.quantize, "--chip", chip.name, "--model", BMODEL_FILE),
                *(("--num_core", str(chip.cores)) if chip.cores > 1 else ()),
                *(("--calibration_table", CALIBRATION_TABLE) if job.calibration else ()),
                *(("--matmul_perchannel",) if job.calibration else ()),
                *(("--quantize_table", QUANTIZE_TABLE) if _has_table(job) else ()),
                *SEARCH[job.effort],
            ],
            until=0.95,
            milestones=3,  # lowering, layer grouping, code generation
        ),
    ]


def _has_table(job: CompileJob) -> bool:
    return PRECISIONS[job.precision].mixed or job.quantize_table is not None


def recipe(chip: Chip, job: CompileJob) -> str:
    """Everything about the steps of such a job that a skeleton depends on, for its cache key."""
    given = job.calibration and CalibrationData(Path("calibration"), "", 0)
    alike = CompileJob(
        "component", Path("graph"), "", (), None, 1, job.precision,
        calibration=given, quantize_table=job.quantize_table,
    )  # fmt: skip
    argvs = [s.argv for s in steps(TpuMlir(Path("toolchain")), chip, alike, Path("weights"), 1)]
    words = [Path(word).name for argv in argvs for word in argv]
    # The precision is named beside this in the key.
    words[words.index("--quantize") + 1] = "PRECISION"
    learned = f"learned by version {learning.VERSION}"
    sources = [IMPORTER, TAPE, *(SOURCES if job.calibration else ())]
    return "\n".join([" ".join(words), learned, *(source.read_text() for source in sources)])


def compile_graph(
    toolchain: TpuMlir,
    chip: Chip,
    job: CompileJob,
    graph: StaticGraph,
    weights: Path | None,
    folder: Path,
    progress: Progress,
) -> None:
    """Fill `folder` with a skeleton or, where `weights` (a file) is given, with a bmodel.

    Record and logs come with either. Raises ToolchainError.
    """
    model = read_graph(graph.path)
    needed = _needed(model, job)
    require_space(folder, needed.temporary, f"compiling {job.label}")
    work = folder / "work"
    work.mkdir()
    copy = work / f"{job.component}.onnx"
    if job.quantize_table is not None:
        shutil.copyfile(job.quantize_table.path, work / QUANTIZE_TABLE)
    if weights is not None:
        shutil.copyfile(graph.path, copy)
        plan = steps(toolchain, chip, job, weights)
        _run(toolchain, chip, job, plan, needed.memory, work, progress)
    else:
        tape = placeholders.point_at_tape(model, copy, work / TAPE_FILE)
        plan = steps(toolchain, chip, job, Path(TAPE_FILE), tape.count)
        _run(toolchain, chip, job, plan, needed.memory, work, progress)
        _keep_skeleton(work, tape, folder)
    _keep_record(toolchain, job, graph, work, folder)
    if weights is not None:
        (work / BMODEL_FILE).rename(folder / BMODEL_FILE)
    shutil.rmtree(work)


def lower_graph(
    toolchain: TpuMlir,
    chip: Chip,
    job: CompileJob,
    graph: StaticGraph,
    weights: Path,
    work: Path,
    progress: Progress,
) -> Path:
    """Compile in the empty folder `work` as far as the chip's operations; return that MLIR.

    It is what a skeleton's instructions are made from, with `weights` (a file) beside it. Raises
    ToolchainError.
    """
    needed = _needed(read_graph(graph.path), job)
    require_space(work, needed.temporary, f"lowering {job.label}")
    shutil.copyfile(graph.path, work / f"{job.component}.onnx")
    if job.quantize_table is not None:
        shutil.copyfile(job.quantize_table.path, work / QUANTIZE_TABLE)
    *before, compiling = steps(toolchain, chip, job, weights)
    lowering = replace(
        compiling,
        name="lowering to the chip's operations",
        argv=[*compiling.argv, "--not_gen_bmodel"],
        until=1.0,
        milestones=1,
        obsolete=f"{job.component}_top*",
    )
    plan = [*before, lowering]
    _run(toolchain, chip, job, plan, needed.memory, work, progress, verb="lower")
    return next(work.glob("*_tpu.mlir"))


def _needed(model: ir.Model, job: CompileJob) -> Cost:
    """Memory of the vendor's programs and what they write, in bytes."""
    places = weight_places(model)
    nbytes = file_size(places)
    memory = compile_memory(job.precision, len(places), nbytes)
    return Cost(memory=memory, temporary=disk_peak(nbytes, job.precision))


def _run(
    toolchain: TpuMlir,
    chip: Chip,
    job: CompileJob,
    plan: Sequence[Step],
    memory: int,
    work: Path,
    progress: Progress,
    verb: str = "compile",
) -> None:
    """Run the programs one after another. Raises ToolchainError naming a repro folder.

    Waits for other compilations where they leave less than `memory` (bytes), and raises InputError
    before the first program when there is less without them.
    """
    stage = f"{verb} {job.label}"
    progress(Event(stage, 0.0))

    def on_wait(note: str) -> None:
        progress(Event(stage, 0.0, note))

    with toolchain.in_use(), memory_for(memory, f"to {stage}", on_wait):
        for start, step in zip((0.0, *(step.until for step in plan)), plan, strict=False):
            report = _reporting(stage, start, step.until, progress)
            try:
                if step.own is not None:
                    step.own(work, report)
                else:
                    run_logged(
                        step.argv,
                        work / LOG_FILE,
                        env={**toolchain.env(), KERNELS: f"{work / 'kernels'}/"},
                        cwd=work,
                        on_line=_milestones(step, report),
                        problem=partial(outgrown, predicted=memory),
                    )
            except ChildStoppedError as e:
                raise ToolchainError(
                    f"{job.label} for {chip.target}: {step.name} was stopped before the memory of "
                    f"this machine was used up: {e}: {LARGER}"
                ) from e
            except ChildFailedError as e:
                if e.code == -SIGKILL or e.line == "Killed":  # that program, or one it started
                    raise ToolchainError(
                        f"{job.label} for {chip.target}: {step.name} was killed, most likely for "
                        f"want of memory (about {memory / 1e9:.1f} GB are needed): {LARGER}"
                    ) from e
                argvs = [step.argv for step in plan if step.argv]
                places = {KERNELS: "kernels/"}
                repro = keep_repro(toolchain, chip.target, job, argvs, work, places)
                raise ToolchainError(
                    f"{job.label} for {chip.target}: {step.name} failed: {e.line}; graph, log and "
                    f"versions are kept, '{shlex.join(['sh', str(repro)])}' does it again"
                ) from e
            _discard(work, step.obsolete)
            report(1.0)


def _reporting(
    stage: str, start: float, until: float, progress: Progress
) -> Callable[[float], None]:
    """What a step tells the fraction of it that is done."""
    return lambda done: progress(Event(stage, start + (until - start) * done))


def _milestones(step: Step, report: Callable[[float], None]) -> Callable[[str], None]:
    seen = 0

    def on_line(line: str) -> None:
        nonlocal seen
        if step.milestones and line.startswith("[Success]"):
            seen = min(seen + 1, step.milestones)
            report(seen / step.milestones)

    return on_line


def _discard(work: Path, pattern: str) -> None:
    for file in work.glob(pattern) if pattern else ():
        file.unlink()


def _keep_skeleton(work: Path, tape: placeholders.Tape, folder: Path) -> None:
    """Learn where the weights belong, and keep the file without them; else say why not."""
    try:
        bmodel = read_bmodel(work / BMODEL_FILE)
        ((_, stage),) = stages(bmodel.model)
        address = stage.coeff_mem.address if stage.coeff_mem is not None else 0
        binary = weights_of(stage) or Binary(0, 0)
        content = np.memmap(bmodel.path, np.uint8, "r", len(bmodel.header))
        mlir = next(work.glob("*_final.mlir")).read_text()
        weight_map = learning.learn(
            content[binary.start : binary.end],
            learning.region_tensors(mlir, address),
            tape.weights(),
            tape.constants,
        )
    except learning.NotLearnedError as e:
        (folder / UNBOUND_FILE).write_text(f"{e}\n")
    else:
        weight_map.save(folder)
        cut_weights(bmodel, folder / BMODEL_FILE)


def unbound(folder: Path) -> str | None:
    """Why the skeleton in `folder` takes no weights but those it is compiled with; else None."""
    path = folder / UNBOUND_FILE
    return path.read_text().strip() if path.is_file() else None


def _keep_record(
    toolchain: TpuMlir, job: CompileJob, graph: StaticGraph, work: Path, folder: Path
) -> None:
    """Write what the compiler says of its work, and move its logs out of the working folder."""
    try:
        info = toolchain.describe(work / BMODEL_FILE)
        record = StageRecord.of(job.component, graph, job.precision, work, info)
    except (OSError, ValueError) as e:
        raise ToolchainError(f"{job.label}: the compiler's report cannot be read: {e}") from e
    record.save(folder)
    with (
        (work / PROFILE_FILE).open("rb") as profile,  # up to 14 MB for a UNet
        gzip.open(folder / f"{PROFILE_FILE}.gz", "wb") as packed,
    ):
        shutil.copyfileobj(profile, packed)
    for name in (LOG_FILE, CALIBRATION_TABLE, QUANTIZE_TABLE):
        if (work / name).exists():
            (work / name).rename(folder / name)
