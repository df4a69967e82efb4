"""A network as the compiler lowered it, in the vendor's interpreter: arithmetic without a chip.

The interpreter runs the operations that a bmodel's instructions are made from, with every tensor
rounded to the precision that was asked for. So it shows what a precision costs, and NaN, at sizes
for which the emulator would take days; what the instructions themselves do, it does not show, but
for one thing that we add: a group norm whose sums leave the range of F16 (`inside/norm_sums.py`).
"""

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path

from converter.cache import Cache
from converter.progress import Progress
from converter.weights import Array
from passes.linked_weights import read_graph
from targets.base import CompileJob, Health, Interpreter, ToolchainError
from targets.driver import Driver, ordered_inputs
from targets.sophgo.chips import Chip
from targets.sophgo.compilation import lower_graph
from targets.sophgo.graphs import static_graph
from targets.sophgo.operations import GroupNorm, group_norms, operations, read_table
from targets.sophgo.precisions import PRECISIONS
from targets.sophgo.toolchain import TpuMlir

DRIVER = Path(__file__).with_name("inside") / "interpreter_driver.py"


class InterpreterRunner(Interpreter):
    """A job's network with `weights` (a file), lowered for `chip` in a folder of its own.

    The compiler names an operation after the ONNX value that it computes and the kind of its node;
    of several nodes that it made one, after the last.
    """

    def __init__(
        self, toolchain: TpuMlir, chip: Chip, job: CompileJob, weights: Path, progress: Progress
    ) -> None:
        graph = static_graph(job)
        self.graph = graph.path
        self._inputs, self._outputs = graph.inputs, graph.outputs
        self._open = ExitStack()
        try:
            folder = self._open.enter_context(Cache("lowered").scratch())
            lowered = lower_graph(toolchain, chip, job, graph, weights, folder, progress)
            self._network = folder / f"{job.component}.mlir"
            norms = json.dumps([astuple(norm) for norm in half_norms(job, self._network)])
            argv: list[str | Path] = [toolchain.python, DRIVER, lowered, norms]
            self._driver = Driver("the compiler's interpreter", argv, toolchain.env(), folder)
            self._open.callback(self._driver.close)
            self._check()
        except BaseException:
            self.close()
            raise

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises ValueError for a wrong port, ToolchainError when it fails."""
        outputs = self._driver.run(ordered_inputs(inputs, self._inputs))
        return {
            port.name: array.reshape(port.shape).astype(port.dtype)
            for port, array in zip(self._outputs, outputs, strict=True)
        }

    def layers(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
        """Run once and read these values; see `LayerRunner.layers`."""
        named = names_of_values(self.graph)
        names = {name: value for value, name in named.items() if value in wanted}
        found = self._driver.layers(ordered_inputs(inputs, self._inputs), names)
        return {names[name]: array for name, array in found.items()}

    def health(self, inputs: Mapping[str, Array]) -> list[Health]:
        """Run once; see `Interpreter.health`. Casts that the compiler put in are left out."""
        seen = self._driver.health(ordered_inputs(inputs, self._inputs))
        known = set(operations(self._network))
        return [Health(*one) for one in seen if one[0] in known]

    def close(self) -> None:
        """End the interpreter and remove the lowered network."""
        self._open.close()

    def _check(self) -> None:
        said = self._driver.described
        wanted = [port.name for port in self._inputs]
        if said["inputs"] != wanted or len(said["outputs"]) != len(self._outputs):
            raise ToolchainError(
                f"the lowered network takes {said['inputs']} and gives {len(said['outputs'])} "
                f"tensors, where {wanted} and {len(self._outputs)} were expected"
            )


def half_norms(job: CompileJob, network: Path) -> list[GroupNorm]:
    """The group norms that are computed in F16."""
    if PRECISIONS[job.precision].activations != "f16":
        return []
    table = {} if job.quantize_table is None else read_table(job.quantize_table.path)
    return [norm for norm in group_norms(network) if table.get(norm.name, "F16") == "F16"]


def names_of_values(graph: Path) -> dict[str, str]:
    """ONNX value -> what the compiler calls the operation that computes it."""
    return {
        value.name: f"{value.name}_{node.op_type}"
        for node in read_graph(graph).graph
        for value in node.outputs
        if value.name
    }
