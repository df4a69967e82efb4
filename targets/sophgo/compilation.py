"""graph + weights -> bmodel: the vendor's programs in order, and what is kept of their outputs."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.files import require_space
from converter.progress import Event, Progress
from targets.base import CompileJob, ToolchainError
from targets.processes import ChildFailedError, run_logged
from targets.sophgo.chips import Chip
from targets.sophgo.cost import disk_peak
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.record import StageRecord
from targets.sophgo.repro import keep_repro
from targets.sophgo.toolchain import TpuMlir

IMPORTER = Path(__file__).with_name("inside") / "importer.py"

BMODEL_FILE = "model.bmodel"
LOG_FILE = "compile.log"
PROFILE_FILE = "compiler_profile_0.txt"

TOP_PASSES = ("--struct-optimize", "--shape-infer", "--canonicalize", "--extra-optimize")
"""What `mlir_opt_for_top` of the vendor's `mlir_shell.py` runs on a freshly imported graph."""


SEARCH = {"normal": (), "high": ("--shape_secs_search_strategy", "2")}
"""How the vendor's layer grouping looks for the way to cut tensors, by effort."""


@dataclass(frozen=True)
class Step:
    """One program: its name in a user's words, its arguments, the fraction done after it.

    `milestones` is how often "[Success]" comes in its output, for the progress bar; `obsolete`
    names the files that nothing needs after it.
    """

    name: str
    argv: Sequence[str | Path]
    until: float
    milestones: int = 0
    obsolete: str = ""


def steps(toolchain: TpuMlir, chip: Chip, job: CompileJob, weights: Path) -> list[Step]:
    """The way from `<component>.onnx` in the working folder to `model.bmodel` there."""
    name = job.component
    return [
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
        Step(
            "compiling",
            # No test input: the vendor's comparison looks at 200 tensors and accepts far-off
            # values. What the result computes is judged by `validate` instead.
            [
                *(toolchain.python, toolchain.script("model_deploy.py"), "--mlir", f"{name}.mlir"),
                *("--quantize", job.precision.upper(), "--chip", chip.name, "--model", BMODEL_FILE),
                *SEARCH[job.effort],
            ],
            until=0.95,
            milestones=3,  # lowering, layer grouping, code generation
        ),
    ]


def recipe(chip: Chip) -> str:
    """Everything about this file's steps that a skeleton depends on, for its cache key."""
    job = CompileJob("component", Path("graph"), "", (), None, 1, "precision")
    argvs = [step.argv for step in steps(TpuMlir(Path("toolchain")), chip, job, Path("weights"))]
    words = [Path(word).name for argv in argvs for word in argv]
    return " ".join(words) + "\n" + IMPORTER.read_text()


def compile_graph(
    toolchain: TpuMlir,
    chip: Chip,
    job: CompileJob,
    graph: StaticGraph,
    weights: Path,
    folder: Path,
    progress: Progress,
) -> None:
    """Fill `folder` with bmodel, record and logs. Raises ToolchainError."""
    needed = disk_peak(weights.stat().st_size, job.precision)
    require_space(folder, needed, f"compiling {job.label}")
    work = folder / "work"
    work.mkdir()
    shutil.copyfile(graph.path, work / f"{job.component}.onnx")
    plan = steps(toolchain, chip, job, weights)
    stage = f"compile {job.label}"
    progress(Event(stage, 0.0))
    with toolchain.alone():
        for start, step in zip((0.0, *(step.until for step in plan)), plan, strict=False):
            try:
                run_logged(
                    step.argv,
                    work / LOG_FILE,
                    env=toolchain.env(),
                    cwd=work,
                    on_line=_milestones(step, start, stage, progress),
                )
            except ChildFailedError as e:
                repro = keep_repro(toolchain, job, [step.argv for step in plan], work)
                raise ToolchainError(
                    f"{job.label} for {chip.name}: {step.name} failed: {e.line}; "
                    f"everything to reproduce it is in {repro}"
                ) from e
            _discard(work, step.obsolete)
            progress(Event(stage, step.until))
    _keep(toolchain, job, graph, work, folder)


def _milestones(step: Step, start: float, stage: str, progress: Progress) -> Callable[[str], None]:
    seen = 0

    def on_line(line: str) -> None:
        nonlocal seen
        if step.milestones and line.startswith("[Success]"):
            seen = min(seen + 1, step.milestones)
            progress(Event(stage, start + (step.until - start) * seen / step.milestones))

    return on_line


def _discard(work: Path, pattern: str) -> None:
    for file in work.glob(pattern) if pattern else ():
        file.unlink()


def _keep(
    toolchain: TpuMlir, job: CompileJob, graph: StaticGraph, work: Path, folder: Path
) -> None:
    """Move what a skeleton consists of out of the working folder, and remove the rest.

    The final MLIR is kept: it holds the device address of every weight, which is what writing
    other weights into the file needs.
    """
    try:
        profile = (work / PROFILE_FILE).read_text(errors="replace")
        info = toolchain.describe(work / BMODEL_FILE)
        record = StageRecord.of(job.component, graph, job.precision, profile, info)
    except (OSError, ValueError) as e:
        raise ToolchainError(f"{job.label}: the compiler's report cannot be read: {e}") from e
    record.save(folder)
    final_mlir = next(work.glob("*_final.mlir"))
    for file, name in (
        (work / BMODEL_FILE, BMODEL_FILE),
        (work / LOG_FILE, LOG_FILE),
        (work / PROFILE_FILE, PROFILE_FILE),
        (final_mlir, "final.mlir"),
    ):
        file.rename(folder / name)
    shutil.rmtree(work)
