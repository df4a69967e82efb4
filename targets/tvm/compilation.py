"""graph -> skeleton: a library that holds no weight, and what it takes and gives."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGKILL
from typing import Any

import onnx_ir as ir

from converter.progress import Event, Progress
from targets.base import CompileJob, ToolchainError
from targets.machine import require_memory
from targets.processes import ChildFailedError, run_logged
from targets.repro import keep_repro
from targets.tvm.cost import compile_memory
from targets.tvm.parameters import take_parameters
from targets.tvm.program import PROGRAM_FILE, Program, operations_of, ports_of
from targets.tvm.toolchain import Tvm

COMPILE = Path(__file__).with_name("inside") / "compile.py"

GRAPH_FILE, LIBRARY_FILE, LOG_FILE = "graph.onnx", "library.so", "compile.log"

STAGES = {"import": 0.05, "compile": 0.3, "link": 0.75}
"""What the script says that it does -> the share of the time that has passed then."""


def compile_graph(
    toolchain: Tvm,
    job: CompileJob,
    graph: ir.Model,
    target: Mapping[str, Any],
    folder: Path,
    progress: Progress,
) -> None:
    """Fill `folder` with a library for a graph of one size, and its `program.json`.

    Raises ToolchainError, and InputError where it does not fit into memory.
    """
    inputs, operations = ports_of(graph.graph.inputs), operations_of(graph)
    parameters = take_parameters(graph)
    program = Program(inputs, ports_of(graph.graph.outputs), tuple(parameters), operations)
    program.save(folder / PROGRAM_FILE)
    work = folder / "work"
    work.mkdir()
    ir.save(graph, work / GRAPH_FILE)
    require_memory(compile_memory(len(graph.graph)), f"to compile {job.label}")
    argv: list[str | Path] = [
        *(toolchain.python, COMPILE, GRAPH_FILE, json.dumps(target), LIBRARY_FILE)
    ]
    run_tvm(toolchain, job, argv, work, progress)
    for name in (LIBRARY_FILE, LOG_FILE):
        (work / name).rename(folder / name)
    shutil.rmtree(work)


def run_tvm(
    toolchain: Tvm, job: CompileJob, argv: list[str | Path], work: Path, progress: Progress
) -> None:
    """Run one of the scripts inside; raises ToolchainError with a folder to send to TVM's makers."""
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
        repro = keep_repro(toolchain, job, [argv], work)
        raise ToolchainError(
            f"{job.label}: TVM failed: {e.line}; everything to reproduce it is in {repro}"
        ) from e


def _milestone(stage: str, progress: Progress) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if word == "stage" and rest in STAGES:
            progress(Event(stage, STAGES[rest]))

    return on_line
