"""The bundle's graph at one size, as the importer wants it: weightless, made once, remembered."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from converter.cache import Cache
from targets.base import CompileJob
from targets.driver import PortAt
from targets.sophgo.precisions import BITS, PRECISIONS


@dataclass(frozen=True)
class StaticGraph:
    """An ONNX graph of fixed shapes, its content hash, and its ports in the consumer's order."""

    path: Path
    sha256: str
    inputs: tuple[PortAt, ...]
    outputs: tuple[PortAt, ...]


def static_graph(job: CompileJob) -> StaticGraph:
    """Run the Sophgo pipeline on the job's graph, unless that was done before."""
    made = Cache("graphs").make(
        f"{job.label} for tpu-mlir", _inputs(job), lambda folder: _build(job, folder)
    )
    return _read(made.path)


def find_static_graph(job: CompileJob) -> StaticGraph | None:
    """What `static_graph` would return, if that was done before."""
    entry = Cache("graphs").find(_inputs(job))
    return None if entry is None else _read(entry)


def _inputs(job: CompileJob) -> dict[str, str]:
    """Everything that a graph of fixed shapes is made from."""
    return {**given(job), "passes": _passes_fingerprint()}


def given(job: CompileJob) -> dict[str, str]:
    """What of a job decides its graph of fixed shapes."""
    return {
        "graph": job.graph_sha256,
        "input shapes": json.dumps(job.input_shapes),
        "half": json.dumps(_is_half(job)),
        **({} if job.calibration is None else {"for": "int8"}),
    }


def _is_half(job: CompileJob) -> bool:
    """Whether the chip computes with 16 bits, at least what lies between products."""
    precision = PRECISIONS[job.precision]
    return precision.mixed or BITS[precision.activations] == 16


def _read(folder: Path) -> StaticGraph:
    ports = json.loads((folder / "ports.json").read_text())
    return StaticGraph(
        path=folder / "model.onnx",
        sha256=ports["sha256"],
        inputs=tuple(map(PortAt.from_json, ports["inputs"])),
        outputs=tuple(map(PortAt.from_json, ports["outputs"])),
    )


def _build(job: CompileJob, folder: Path) -> None:
    import onnx_ir as ir

    from passes import pipelines
    from passes.linked_weights import read_graph

    shapes = dict(job.input_shapes)
    int8 = job.calibration is not None
    pipeline = pipelines.sophgo(shapes, half=_is_half(job), int8=int8)
    model = pipeline.run(read_graph(job.graph)).model
    content = ir.to_proto(model).SerializeToString(deterministic=True)
    (folder / "model.onnx").write_bytes(content)
    by_name = {value.name: value for value in model.graph.inputs}
    ports = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [asdict(_port(by_name[name])) for name in shapes],
        "outputs": [asdict(_port(value)) for value in model.graph.outputs],
    }
    if list(by_name) != list(shapes):
        raise ValueError(f"{job.label}: inputs {list(by_name)} are not in the order {list(shapes)}")
    (folder / "ports.json").write_text(json.dumps(ports, indent=1))


def _port(value: Any) -> PortAt:
    return PortAt(value.name, value.dtype.numpy().name, tuple(value.shape.numpy()))


@cache
def _passes_fingerprint() -> str:
    """Hash of the passes' own source and of the libraries that do the work for them."""
    libraries = [metadata.version(name) for name in ("onnx", "onnx-ir", "onnxruntime")]
    return hashlib.sha256("".join([passes_hash(), *libraries]).encode()).hexdigest()


@cache
def passes_hash() -> str:
    """SHA-256 of the source of all passes."""
    import passes

    sources = sorted(Path(passes.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
