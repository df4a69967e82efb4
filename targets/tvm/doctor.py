"""Proof that TVM works here: a network small enough to check by hand, compiled and run."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.progress import Event, Progress, silent
from converter.weights import Array, TensorSpec
from passes.weights import plan_offsets, unwritten
from targets.base import CompileJob, ToolchainError
from targets.toolchains import Proof
from targets.tvm.binding import write_parameters
from targets.tvm.compilation import CLML_FILE, compile_graph
from targets.tvm.kinds import KINDS, Build
from targets.tvm.opencl_device import opencl_device
from targets.tvm.program import PROGRAM_FILE, Program
from targets.tvm.runner import Loaded, TvmRunner
from targets.tvm.toolchain import Tvm

MICRO_GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
micro (float[1, 4, 8, 8] picture, float[6, 4, 3, 3] kernel, float[6] bias) => (float[1, 6, 8, 8] y)
{
    convolved = Conv <pads = [1, 1, 1, 1]> (picture, kernel, bias)
    y = Sigmoid (convolved)
}
"""
"""A convolution, which CLML can run, and a sigmoid, which it cannot."""

TOLERANCE = 1e-6
"""Another order of 37 additions in float32, on results up to 1."""


def prove(toolchain: Tvm, progress: Progress) -> list[Proof]:
    """Compile the micro network for every target and run what can be run here."""
    stage = f"check {toolchain.name} {toolchain.version}"
    progress(Event(stage, 0.0))
    proofs = []
    for done, kind in enumerate(KINDS.values(), start=1):
        proofs += list(_try(toolchain, kind.name))
        progress(Event(stage, done / len(KINDS)))
    return proofs


def _try(toolchain: Tvm, name: str) -> Iterator[Proof]:
    kind = KINDS[name]
    builds = kind.builds("f32")
    rng = np.random.default_rng(0)
    values = {
        "kernel": rng.standard_normal((6, 4, 3, 3), np.float32),
        "bias": rng.standard_normal(6, np.float32),
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = CompileJob("micro", folder, "", (), None, 1, "f32")
        try:
            graph = _graph()
            compile_graph(toolchain, name, job, graph, builds, folder, silent, library=kind.library)
        except ToolchainError as e:
            yield Proof(f"compile for {name}", False, str(e))
            return
        program = Program.load(folder / PROGRAM_FILE)
        parameters = {p.name: p for p in (*program.parameters, *program.constants)}
        write_parameters(parameters, _Values(values), folder, silent, "bind")
        yield Proof(f"compile for {name}", True, ", ".join(build.library for build in builds))
        for build in builds:
            if build.runner is not None:
                yield _run(toolchain, name, build, folder, values)


def _run(toolchain: Tvm, name: str, build: Build, folder: Path, values: dict[str, Array]) -> Proof:
    what = f"run {name} on {build.runner}"
    plugin = opencl_device(toolchain) if build.runner == "opencl" else None
    graphs = folder / CLML_FILE
    loaded = Loaded(
        folder / PROGRAM_FILE,
        folder / build.library,
        graphs if graphs.is_file() else None,
        str(build.runner),
        plugin,
    )
    picture = np.random.default_rng(1).standard_normal((1, 4, 8, 8), np.float32)
    try:
        with TvmRunner(toolchain, loaded) as runner:
            found = runner.infer({"picture": picture})["y"]
            device = runner.device
    except ToolchainError as e:
        return Proof(what, False, str(e))
    error = float(np.abs(found - _answer(picture, values)).max())
    return Proof(what, error < TOLERANCE, f"{device}, error {error:.1e}, {TOLERANCE:.0e} allowed")


def _answer(picture: Array, values: dict[str, Array]) -> Array:
    """The convolution by its definition, then the sigmoid."""
    padded = np.pad(picture[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    convolved = np.einsum("chwyx,ocyx->ohw", seen, values["kernel"])
    return np.asarray(1 / (1 + np.exp(-convolved - values["bias"][:, None, None])))[None]


def _graph() -> ir.Model:
    """The micro network with weights of a file that is never written."""
    import onnx

    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(MICRO_GRAPH)))
    for value in model.graph.inputs[1:]:
        assert value.name and value.shape is not None and value.dtype is not None
        value.const_value = unwritten("weights", value.name, value.shape, value.dtype, 0)
        model.graph.inputs.remove(value)
        model.graph.initializers[value.name] = value
    plan_offsets(model)
    return model


class _Values:
    """A `WeightSource` of arrays."""

    def __init__(self, values: dict[str, Array]) -> None:
        self._values = values
        self.key = "micro"
        self.file: Path | None = None
        self.tensor_keys: dict[str, str] = {}

    def names(self) -> list[str]:
        """The arrays' names."""
        return list(self._values)

    def spec(self, name: str) -> TensorSpec:
        """Its shape and dtype."""
        return TensorSpec(self._values[name].shape, "float32")

    def read(self, name: str) -> Array:
        """One array."""
        return self._values[name]

    def forget(self, name: str) -> None:
        """Nothing was mapped."""
