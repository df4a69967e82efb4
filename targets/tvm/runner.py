"""Running a library through TVM's Python API: a driver process that is asked line by line.

What is for a phone runs here as its twin: the same program compiled for this machine, its kernels
in OpenCL where this machine has one (`opencl_device`), CLML's graphs computed by definition.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.weights import Array
from targets.base import Runner, ToolchainError
from targets.driver import Compute, Driver, ordered_inputs
from targets.machine import Machine
from targets.tvm.binding import DATA_FILE, read_index
from targets.tvm.host_operator import SYMBOL, open_part
from targets.tvm.parameters import Parameter
from targets.tvm.program import Program
from targets.tvm.toolchain import Tvm

DRIVER = Path(__file__).with_name("inside") / "driver.py"


@dataclass(frozen=True)
class Loaded:
    """The files of a program that is to run here. `plugin` gives TVM the device, if need be.

    `part` is the model that the host runs in between.
    """

    program: Path
    library: Path
    graphs: Path | None
    device: str = "cpu"
    plugin: Path | None = None
    part: Path | None = None


class TvmRunner(Runner):
    """A library and its parameters, loaded once."""

    def __init__(self, toolchain: Tvm, loaded: Loaded) -> None:
        program = Program.load(loaded.program)
        self._inputs, self._outputs = program.inputs, program.outputs
        home = loaded.program.parent
        described = {
            "library": str(loaded.library.absolute()),
            "device": loaded.device,
            "plugin": None if loaded.plugin is None else str(loaded.plugin),
            "file": str((home / DATA_FILE).absolute()),
            "parameters": _places(home, program.parameters),
            "constants": _places(home, program.constants),
            "graphs": None if loaded.graphs is None else str(loaded.graphs.absolute()),
            "host": None if program.host is None else SYMBOL,
        }
        self._open = ExitStack()
        try:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            wanted = folder / "program.json"
            wanted.write_text(json.dumps(described))
            env = {**toolchain.env(), "TVM_NUM_THREADS": str(Machine.here().cores)}
            argv: list[str | Path] = [toolchain.python, DRIVER, wanted]
            compute = self._open_part(program, loaded.part)
            self._driver = Driver("TVM", argv, env, folder, compute)
            self._open.callback(self._driver.close)
        except BaseException:
            self.close()
            raise

    def _open_part(self, program: Program, model: Path | None) -> Compute | None:
        """What answers when the program calls the host."""
        if program.host is None or model is None:
            return None
        host, runner = program.host, self._open.enter_context(open_part(model))
        return lambda arrays: [runner.infer({host.takes.name: arrays[0]})[host.gives.name]]

    @property
    def device(self) -> str:
        """What runs it, as the device calls itself."""
        return str(self._driver.described["device"])

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises ValueError for a wrong port, ToolchainError when TVM fails."""
        outputs = self._driver.run(ordered_inputs(inputs, self._inputs))
        return {port.name: a for port, a in zip(self._outputs, outputs, strict=True)}

    def close(self) -> None:
        """End the driver, mid-inference if need be, and remove its files."""
        self._open.close()


def _places(home: Path, parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    index = read_index(home)
    lost = [p.name for p in parameters if p.name not in index]
    if lost:
        raise ToolchainError(
            f"{home}: {len(lost)} parameters are not there ({lost[0]}): run the same compile again"
        )
    return [
        {"name": r["name"], "dtype": r["dtype"], "shape": r["shape"], "offset": r["byteOffset"]}
        for r in (index[parameter.name] for parameter in parameters)
    ]
