"""Running a .mnn through MNN's Python API: a driver process that is asked line by line."""

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.weights import Array
from targets.base import Runner, ToolchainError
from targets.driver import Driver
from targets.machine import Machine
from targets.mnn.model import WEIGHTS_SUFFIX, UnreadableModelError, read_model
from targets.mnn.toolchain import Mnn

DRIVER = Path(__file__).with_name("inside") / "module_driver.py"

BACKENDS = {"cpu": 0, "opencl": 3}
"""Numbers of MNN's back-ends (`MNNForwardType`)."""


@dataclass(frozen=True)
class Session:
    """How a model is loaded. `dynamic`: memory mode low, which brings activations to 8 bits.

    `python` is one that has MNN with the back-end in it.
    """

    python: Path
    dynamic: bool = False
    backend: str = "cpu"


class MnnRunner(Runner):
    """A model loaded once, for whatever sizes its graph takes: it is resized as inputs come."""

    def __init__(self, toolchain: Mnn, session: Session, path: Path) -> None:
        check_whole(path)
        model = read_model(path)
        self._inputs = model.inputs
        self._outputs = model.outputs
        self._open = ExitStack()
        try:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            described = {
                "model": str(path.absolute()),
                "inputs": [port.name for port in model.inputs],
                "dtypes": [port.dtype for port in model.inputs],
                "outputs": list(model.outputs),
                "backend": BACKENDS[session.backend],
                "memory": 2 if session.dynamic else 0,
                "threads": Machine.here().cores,
            }
            argv: list[str | Path] = [session.python, DRIVER, json.dumps(described)]
            self._driver = Driver("MNN", argv, toolchain.env(), folder)
            self._open.callback(self._driver.close)
        except BaseException:
            self.close()
            raise

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises ValueError for a wrong port, ToolchainError when MNN fails."""
        wanted = {port.name for port in self._inputs}
        if wanted != inputs.keys():
            raise ValueError(f"inputs {sorted(inputs)} given, and the model takes {sorted(wanted)}")
        # Integers have 32 bits in MNN, whatever the graph said.
        given = [
            np.ascontiguousarray(inputs[port.name], "int32" if "int" in port.dtype else port.dtype)
            for port in self._inputs
        ]
        return dict(zip(self._outputs, self._driver.run(given), strict=True))

    def close(self) -> None:
        """End the driver, mid-inference if need be, and remove its files."""
        self._open.close()


def check_whole(path: Path) -> None:
    """Raise ToolchainError for a model without its weights: MNN would go on and compute garbage."""
    weights = path.with_name(path.name + WEIGHTS_SUFFIX)
    try:
        needed = read_model(path).weights_nbytes
    except (OSError, UnreadableModelError) as e:
        raise ToolchainError(f"{e}: run the same compile again") from e
    found = weights.stat().st_size if weights.is_file() else 0
    if found < needed:
        raise ToolchainError(
            f"{weights}: {found} of {needed} bytes of weights are there, and without them MNN "
            "computes garbage: run the same compile again"
        )
