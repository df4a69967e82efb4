"""graph -> skeleton, or graph + weights -> model: MNN's converter, and what is believed of it.

It always says True, says "Converted Success!" where the output folder does not exist, and takes no
notice of options that it does not know or cannot read. So a conversion counts only if everything
fits: what it printed, the files, their sizes, the ports, every place of a parameter. A skeleton is
converted with placeholders, so that what is in the files is known besides; a model converted with
its weights is run.
"""

import hashlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL

import numpy as np
import onnx_ir as ir

from converter.files import require_space
from converter.progress import Event, Progress
from converter.weights import Array
from passes.weights import weight_places
from targets.base import CompileJob, ToolchainError
from targets.mnn.cost import conversion_memory, temporary
from targets.mnn.learning import VERSION, NotLearnedError, independent, learn
from targets.mnn.model import WEIGHTS_SUFFIX, Model, UnreadableModelError, read_model
from targets.mnn.precisions import Precision
from targets.mnn.runner import MnnRunner, Session
from targets.mnn.toolchain import Mnn
from targets.mnn.weight_map import WeightMap
from targets.placeholders import point_at_tape
from targets.processes import ChildFailedError, run_logged
from targets.repro import keep_repro
from targets.turns import memory_for

CONVERT = Path(__file__).with_name("inside") / "convert.py"
SUCCESS = "Converted Success!"

MODEL_FILE = "model.mnn"
LOG_FILE = "convert.log"
UNBOUND_FILE = "unbound.txt"
GRAPH_FILE, TAPE_FILE = "model.onnx", "placeholders"

HUGE = 1e30
"""MNN clamps what it computes: NaN and infinity come out as numbers near 3e38."""

SEED, SPREAD = 0, 0.05
"""Of the placeholders: random, with the standard deviation of real weights."""


def conversion_key() -> str:
    """Content hash of how a graph is converted and learned."""
    steps = f"{CONVERT.read_text()}\nlearned by version {VERSION}"
    return hashlib.sha256(steps.encode()).hexdigest()


def convert_graph(
    toolchain: Mnn,
    job: CompileJob,
    precision: Precision,
    graph: ir.Model,
    weights: Path | None,
    folder: Path,
    progress: Progress,
) -> None:
    """Fill `folder` with a skeleton or, where `weights` (a file) is given, with a whole model.

    Raises ToolchainError, and InputError where it does not fit into memory or onto the disk.
    """
    places = weight_places(graph)
    require_space(folder, temporary(places.values(), precision), f"compiling {job.label}")
    work = folder / "work"
    work.mkdir()
    if weights is None:
        constants = independent(graph)
        tape = point_at_tape(graph, work / GRAPH_FILE, work / TAPE_FILE)
        _write_tape(tape.path, tape.count)
        model = _convert(toolchain, job, precision, graph, work, progress)
        progress(Event(f"compile {job.label}", 0.8))
        files = work / MODEL_FILE, work / (MODEL_FILE + WEIGHTS_SUFFIX)
        try:
            found = learn(model, *files, tape.weights(), constants)
        except NotLearnedError as e:
            (folder / UNBOUND_FILE).write_text(f"{e}\n")
        else:
            found.save(folder)
            (folder / MODEL_FILE).write_bytes(_blanked(files[0], model, found))
    else:
        ir.save(graph, work / GRAPH_FILE)
        (work / weights.name).symlink_to(weights)
        model = _convert(toolchain, job, precision, graph, work, progress)
        _check_runs(toolchain, job, precision, model, work)
        for name in (MODEL_FILE, MODEL_FILE + WEIGHTS_SUFFIX):
            (work / name).rename(folder / name)
    (work / LOG_FILE).rename(folder / LOG_FILE)
    shutil.rmtree(work)


def unbound(folder: Path) -> str | None:
    """Why the skeleton in `folder` takes no weights but those it is compiled with; else None."""
    path = folder / UNBOUND_FILE
    return path.read_text().strip() if path.is_file() else None


def _convert(
    toolchain: Mnn,
    job: CompileJob,
    precision: Precision,
    graph: ir.Model,
    work: Path,
    progress: Progress,
) -> Model:
    """Run the converter in `work`, which is nobody else's. Raises ToolchainError."""
    stage = f"compile {job.label}"
    progress(Event(stage, 0.05))
    memory = conversion_memory(weight_places(graph).values())
    argv: list[str | Path] = [toolchain.python, CONVERT, GRAPH_FILE, MODEL_FILE, *precision.options]
    log = work / LOG_FILE
    heard = _milestone(stage, progress)

    def on_wait(why: str) -> None:
        progress(Event(stage, 0.05, f"{job.label}: {why}"))

    try:
        with memory_for(memory, f"to {stage}", on_wait):
            run_logged(argv, log, env=toolchain.env(), cwd=work, on_line=heard)
        return _believed(graph, log.read_text(errors="replace"), work)
    except ChildFailedError as e:
        if e.code == -SIGKILL:
            raise ToolchainError(
                f"{job.label}: MNN's converter was killed, most likely for want of memory (about "
                f"{memory / 1e9:.1f} GB are needed): end other programs, or compile on a larger "
                "machine and carry the result here with 'sdconv skeleton export' and 'import'"
            ) from e
        reason = e.line
    except UnreadableModelError as e:
        reason = str(e)
    repro = keep_repro(toolchain, toolchain.name, job, [argv], work)
    raise ToolchainError(
        f"{job.label}: MNN's converter failed: {reason}; graph, log and versions are kept, "
        f"'{shlex.join(['sh', str(repro)])}' does it again"
    )


def _believed(graph: ir.Model, said: str, work: Path) -> Model:
    """The model that was written, if all fits; raises UnreadableModelError saying what does not."""
    lines = said.splitlines()
    telling = [line for line in lines if "Not Support" in line or "[ERROR]" in line]
    if SUCCESS not in lines:
        raise UnreadableModelError("; ".join(telling) or "it did not say that it succeeded")
    refused = [line for line in lines if "Not support option" in line]
    if refused:
        raise UnreadableModelError(f"an option was not taken: {refused[0]}")
    path, weights = work / MODEL_FILE, work / (MODEL_FILE + WEIGHTS_SUFFIX)
    missing = [file.name for file in (path, weights) if not file.is_file()]
    if missing:
        raise UnreadableModelError(f"it wrote no {' and no '.join(missing)}")
    model = read_model(path)
    if model.weights_nbytes != weights.stat().st_size:
        raise UnreadableModelError(
            f"{weights.name} has {weights.stat().st_size} bytes, and {path.name} reads "
            f"{model.weights_nbytes} of it"
        )
    ports = [str(value.name) for value in graph.graph.inputs]
    outputs = [str(value.name) for value in graph.graph.outputs]
    found = [port.name for port in model.inputs]
    if sorted(found) != sorted(ports) or list(model.outputs) != outputs:
        raise UnreadableModelError(
            f"it has inputs {found} and outputs {list(model.outputs)} where the graph has {ports} "
            f"and {outputs}"
        )
    return model


def _check_runs(
    toolchain: Mnn, job: CompileJob, precision: Precision, model: Model, work: Path
) -> None:
    """Run a model once at the job's shapes; raises ToolchainError unless numbers come out."""
    inputs = {port.name: _random(dict(job.input_shapes)[port.name], port.dtype)
              for port in model.inputs}  # fmt: skip
    session = Session(toolchain.python, dynamic=precision.dynamic)
    with MnnRunner(toolchain, session, work / MODEL_FILE) as runner:
        outputs = runner.infer(inputs)
    broken = [name for name, values in outputs.items() if not (np.abs(values) < HUGE).all()]
    if broken:
        raise ToolchainError(
            f"{job.label}: converted, but {', '.join(broken)} has values that are none"
        )


def _random(shape: Sequence[int], dtype: str) -> Array:
    values = np.random.default_rng(SEED).random(shape, np.float32)
    return np.asarray(values.astype(dtype))


def _blanked(path: Path, model: Model, found: WeightMap) -> bytes:
    """The file without the placeholders in it, which no skeleton has to carry."""
    content = bytearray(path.read_bytes())
    weights = {placed.offset for placed in found.weights if placed.inside}
    for at in (parameter.at for parameter in model.parameters):
        if at.inside and at.offset in weights:
            content[at.offset : at.end] = bytes(at.nbytes)
    return bytes(content)


def _write_tape(path: Path, count: int) -> None:
    """Random values that are exact in 16 bits: what the converter casts is then known exactly."""
    rng = np.random.default_rng(SEED)
    with path.open("wb") as file:
        for start in range(0, count, 1 << 20):
            values = rng.standard_normal(min(1 << 20, count - start), np.float32) * SPREAD
            values.astype(np.float16).astype(np.float32).tofile(file)


def _milestone(stage: str, progress: Progress) -> Callable[[str], None]:
    """Two lines of the converter say how far it is."""
    marks = {"Start to Optimize": 0.15, "Save Weight": 0.6}

    def on_line(line: str) -> None:
        for mark, share in marks.items():
            if line.startswith(mark):
                progress(Event(stage, share))

    return on_line
