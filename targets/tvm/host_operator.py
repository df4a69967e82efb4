"""The part of a program that the host runs with MNN, in float32: a model with weights of its own.

A VAE's attention: its scores pass what float16 holds. The model is converted into the program's
skeleton, and another checkpoint's weights are bound to it as to any of MNN's.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from converter.progress import Event, Progress
from converter.weights import WeightSource
from passes import pipelines
from targets.base import CompileJob, Skeleton, ToolchainError
from targets.mnn.binding import bind
from targets.mnn.conversion import conversion_key, convert_graph, unbound
from targets.mnn.model import WEIGHTS_SUFFIX
from targets.mnn.precisions import PRECISIONS
from targets.mnn.runner import MnnRunner, Session
from targets.mnn.toolchain import Mnn, runtime_python
from targets.tvm.program import HostOperator, operations_of, ports_of

MODEL = "attention.mnn"
"""Its file in a folder of artifacts, behind the size; its weights lie beside it."""

SYMBOL = "sdconv_attention"
"""The function that the program calls."""

EXACT = PRECISIONS["f32"]


def convert_part(part: ir.Model, job: CompileJob, folder: Path, progress: Progress) -> HostOperator:
    """Put MNN's skeleton of a part of the job's graph into `folder`. Raises ToolchainError."""
    Mnn().check_ready()
    mine = replace(job, component=f"{job.component}_attention", precision=EXACT.name)
    pipelines.host().run(part)
    (takes,), (gives,) = ports_of(part.graph.inputs), ports_of(part.graph.outputs)
    described = HostOperator(takes, gives, operations_of(part), tensor_bytes(part))
    mine = replace(mine, input_shapes=((takes.name, takes.shape),))
    convert_graph(Mnn(), mine, EXACT, part, None, folder, progress)
    if reason := unbound(folder):
        raise ToolchainError(f"{mine.label}: no weights can be bound to MNN's model: {reason}")
    progress(Event(f"compile {mine.label}", 1.0))
    return described


def convert_key() -> str:
    """Everything that the model is made by, besides the graph."""
    toolchain = Mnn()
    return f"{toolchain.name} {toolchain.version} {conversion_key()}"


def request(host: HostOperator) -> dict[str, Any]:
    """As `inside/compile.py` takes it."""
    megabytes = [math.prod(port.shape) * 4 / 1e6 for port in (host.takes, host.gives)]
    return {
        "symbol": SYMBOL,
        "operator": "attention",
        "operations": host.operations,
        "reason": "MNN computes it in float32, for its scores pass what float16 holds; "
        "{:.2f} MB go there and {:.2f} MB come back".format(*megabytes),
    }


def bind_part(skeleton: Skeleton, weights: WeightSource, path: Path, progress: Progress) -> bool:
    """Write the model at `path`, its weights beside it; False where both lie there already."""
    return bind(skeleton, EXACT, weights, path, progress)


def weights_file(path: Path) -> Path:
    """The file of a model's weights."""
    return path.with_name(path.name + WEIGHTS_SUFFIX)


def open_part(path: Path) -> MnnRunner:
    """Load the model on this machine's CPU. Raises ToolchainError."""
    toolchain = Mnn()
    toolchain.check_ready()
    return MnnRunner(toolchain, Session(runtime_python(toolchain)), path)


def tensor_bytes(part: ir.Model) -> int:
    """What its tensors take at most, by who is alive when, and copies of what goes in and out.

    MNN 3.6.1 took 0.18 GB for a picture of 512x512 and 0.36 GB for one of 1024x1024, measured with
    its C++ interface; this says 0.17 and 0.36.
    """
    owners: dict[ir.Value, ir.Value] = {}  # of a view, what it is a view of
    last: dict[ir.Value, int] = {}
    for place, node in enumerate(part.graph):
        varying = [v for v in node.inputs if v is not None and not v.is_initializer()]
        if node.op_type == "Reshape" and varying:
            owners[node.outputs[0]] = owners.get(varying[0], varying[0])
        last |= {owners.get(value, value): place for value in varying}
    ports = sum(_nbytes(value) for value in (*part.graph.inputs, *part.graph.outputs))
    alive = most = sum(_nbytes(value) for value in part.graph.inputs)
    for place, node in enumerate(part.graph):
        alive += sum(_nbytes(value) for value in node.outputs if value not in owners)
        most = max(most, alive)
        alive -= sum(_nbytes(value) for value, end in last.items() if end == place)
    return most + ports


def _nbytes(value: ir.Value) -> int:
    assert value.shape is not None and value.dtype is not None
    return math.prod(value.shape.numpy()) * int(value.dtype.itemsize)
