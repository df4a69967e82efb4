"""graph -> skeleton: libraries that hold no weight, and what they take and give."""

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL

import onnx_ir as ir

from converter.progress import Event, Progress
from passes.weights import weights_of
from targets.base import CompileJob, ToolchainError
from targets.machine import require_memory
from targets.processes import ChildFailedError, run_logged
from targets.repro import keep_repro
from targets.tvm import host_operator
from targets.tvm.cost import compile_memory
from targets.tvm.kinds import Build
from targets.tvm.parameters import take_parameters
from targets.tvm.program import PROGRAM_FILE, HostOperator, Program, operations_of, ports_of
from targets.tvm.toolchain import Tvm

INSIDE = Path(__file__).with_name("inside")
COMPILE = INSIDE / "compile.py"
STEPS = sorted(path for path in INSIDE.glob("*.py") if path.name != "driver.py")
"""The scripts that a skeleton is made by."""

GRAPH_FILE, REQUEST_FILE, LOG_FILE = "graph.onnx", "request.json", "compile.log"
MADE_FILE, CLML_FILE, PLACEMENT_FILE = "made.json", "clml.json", "placement.json"

ALL_GENERATED = "its kernels are generated, for all that the host does not run"


def steps_key() -> str:
    """Content hash of the scripts."""
    return hashlib.sha256(b"".join(step.read_bytes() for step in STEPS)).hexdigest()


def compile_graph(
    toolchain: Tvm,
    target: str,
    job: CompileJob,
    graph: ir.Model,
    builds: Sequence[Build],
    folder: Path,
    progress: Progress,
    *,
    library: str | None,
    host: HostOperator | None = None,
) -> None:
    """Fill `folder` with the libraries for a graph of one size, and its `program.json`.

    `library` is the kind's, `host` what was cut out of the graph. Raises ToolchainError, and
    InputError where it does not fit into memory.
    """
    inputs, outputs = ports_of(graph.graph.inputs), ports_of(graph.graph.outputs)
    operations = operations_of(graph)
    require_memory(compile_memory(len(weights_of(graph))), f"to compile {job.label}")
    parameters = {p.name: p for p in take_parameters(graph)}
    work = folder / "work"
    work.mkdir()
    ir.save(graph, work / GRAPH_FILE)
    request = {
        "graph": GRAPH_FILE,
        "inputs": len(inputs),
        "parameters": list(parameters),
        "clml": library == "CLML",
        "host": None if host is None else host_operator.request(host),
        "builds": [build.request() for build in builds],
    }
    (work / REQUEST_FILE).write_text(json.dumps(request))
    argv: list[str | Path] = [toolchain.python, COMPILE, REQUEST_FILE]
    _run(toolchain, target, job, argv, work, progress)
    made = json.loads((work / MADE_FILE).read_text())
    constants = dict.fromkeys(name for g in made["graphs"] for name in g["constants"])
    if host is not None:
        inputs, outputs, operations = inputs[:-1], outputs[:-1], operations + host.operations
    Program(
        inputs,
        outputs,
        tuple(parameters[name] for name in made["parameters"]),
        tuple(parameters[name] for name in constants),
        operations,
        made["activations"],
        made["pool"],
        host,
    ).save(folder / PROGRAM_FILE)
    if library == "CLML":
        (folder / CLML_FILE).write_text(json.dumps(made["graphs"], separators=(",", ":")))
    if library is not None:
        why = "" if library == "CLML" else ALL_GENERATED
        placement = {"library": library, "why": why, **made["report"]}
        (folder / PLACEMENT_FILE).write_text(json.dumps(placement))
    for name in (*(build.library for build in builds), LOG_FILE):
        (work / name).rename(folder / name)
    shutil.rmtree(work)


def _run(
    toolchain: Tvm,
    target: str,
    job: CompileJob,
    argv: list[str | Path],
    work: Path,
    progress: Progress,
) -> None:
    """Run the script; raises ToolchainError with a folder to send to TVM's makers."""
    on_line = _milestone(f"compile {job.label}", progress)
    try:
        run_logged(argv, work / LOG_FILE, env=toolchain.env(), cwd=work, on_line=on_line)
    except ChildFailedError as e:
        if e.code == -SIGKILL:
            raise ToolchainError(
                f"{job.label}: TVM was killed, most likely for want of memory: end other programs, "
                "or compile on a larger machine and carry the result here with 'sdconv skeleton "
                "export' and 'import'"
            ) from e
        for step in STEPS:  # what `argv` runs imports the others
            shutil.copyfile(step, work / step.name)
        repro = keep_repro(toolchain, target, job, [argv], work)
        raise ToolchainError(
            f"{job.label}: TVM failed: {e.line}; graph, log and versions are kept, "
            f"'{shlex.join(['sh', str(repro)])}' does it again"
        ) from e


def _milestone(stage: str, progress: Progress) -> Callable[[str], None]:
    """Half of what is left has passed with every stage that begins."""
    left = 1.0

    def on_line(line: str) -> None:
        nonlocal left
        if line.startswith("stage "):
            progress(Event(stage, 1 - left))
            left *= 0.75

    return on_line
