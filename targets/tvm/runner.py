"""Running a library through TVM's Python API: a driver process that is asked line by line."""

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from converter.weights import Array
from targets.base import Runner, ToolchainError
from targets.driver import Driver, ordered_inputs
from targets.machine import Machine
from targets.tvm.binding import DATA_FILE, read_index
from targets.tvm.program import Program
from targets.tvm.toolchain import Tvm

DRIVER = Path(__file__).with_name("inside") / "driver.py"


class TvmRunner(Runner):
    """A library and its parameters, loaded once."""

    def __init__(self, toolchain: Tvm, library: Path) -> None:
        program = Program.load(library.with_suffix(".json"))
        self._inputs, self._outputs = program.inputs, program.outputs
        index = read_index(library.parent)
        lost = [p.name for p in program.parameters if p.name not in index]
        if lost:
            raise ToolchainError(
                f"{library.parent}: {len(lost)} parameters of {library.name} are not there "
                f"({lost[0]}): run the same compile again"
            )
        records = (index[parameter.name] for parameter in program.parameters)
        described = {
            "library": str(library.absolute()),
            "file": str((library.parent / DATA_FILE).absolute()),
            "parameters": [
                {"dtype": r["dtype"], "shape": r["shape"], "offset": r["byteOffset"]}
                for r in records
            ],
        }
        self._open = ExitStack()
        try:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            wanted = folder / "program.json"
            wanted.write_text(json.dumps(described))
            env = {**toolchain.env(), "TVM_NUM_THREADS": str(Machine.here().cores)}
            self._driver = Driver("TVM", [toolchain.python, DRIVER, wanted], env, folder)
            self._open.callback(self._driver.close)
        except BaseException:
            self.close()
            raise

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises ValueError for a wrong port, ToolchainError when TVM fails."""
        outputs = self._driver.run(ordered_inputs(inputs, self._inputs))
        return {port.name: a for port, a in zip(self._outputs, outputs, strict=True)}

    def close(self) -> None:
        """End the driver, mid-inference if need be, and remove its files."""
        self._open.close()
