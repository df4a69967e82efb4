"""Running a bmodel on the vendor's chip emulator: a driver process that is asked line by line."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from converter.weights import Array
from targets.base import Runner, ToolchainError
from targets.processes import end_group, own_group, telling_line
from targets.sophgo.chips import Chip
from targets.sophgo.graphs import PortAt
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir

DRIVER = Path(__file__).with_name("inside") / "emulator_driver.py"

IDLE_SECONDS = 5
"""How long a driver may take to end by itself; one in the middle of an inference takes hours."""


class EmulatorRunner(Runner):
    """One stage of a bmodel on the emulator. Ports bind by position, as on the device.

    The compiled network renames its outputs, so names, order and shapes come from `record`, and
    every stage that the file claims to hold is compared with it before anything runs.
    """

    def __init__(self, toolchain: TpuMlir, chip: Chip, bmodel: Path, record: StageRecord) -> None:
        self._record = record
        self._open = ExitStack()
        try:
            self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            self._log = self._folder / "emulator.log"
            argv = [toolchain.python, DRIVER, bmodel.absolute()]
            env = emulator_env(toolchain, chip, self._folder)
            log = self._open.enter_context(self._log.open("wb"))
            pipe = subprocess.PIPE
            self._driver = self._open.enter_context(
                own_group(argv, env=env, cwd=self._folder, stdin=pipe, stdout=pipe, stderr=log)
            )
            check_stage(self._answer(), record, bmodel)
        except BaseException:
            self.close()
            raise

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises ValueError for a wrong port, ToolchainError when the emulator fails."""
        ordered = ordered_inputs(inputs, self._record.inputs)
        given, results = self._folder / "inputs.npz", self._folder / "outputs.npz"
        np.savez(given, allow_pickle=False, **{str(i): a for i, a in enumerate(ordered)})
        self._ask({"inputs": str(given), "outputs": str(results)})
        self._answer()
        with np.load(results) as arrays:
            return {port.name: arrays[str(i)] for i, port in enumerate(self._record.outputs)}

    def close(self) -> None:
        """End the driver, mid-inference if need be, and remove its files."""
        driver = getattr(self, "_driver", None)
        if driver is not None and driver.stdin is not None:
            driver.stdin.close()  # an idle driver ends by itself
            try:
                driver.wait(timeout=IDLE_SECONDS)
            except subprocess.TimeoutExpired:
                end_group(driver)
        self._open.close()

    def _ask(self, request: Mapping[str, str]) -> None:
        assert self._driver.stdin is not None, "opened as a pipe above"
        try:
            self._driver.stdin.write(json.dumps(request).encode() + b"\n")
            self._driver.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _answer(self) -> dict[str, Any]:
        assert self._driver.stdout is not None, "opened as a pipe above"
        line = self._driver.stdout.readline()
        if not line:
            self._fail()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ToolchainError(f"the chip emulator: {answer['error']}")
        return answer

    def _fail(self) -> NoReturn:
        log = self._log.read_text(errors="replace")
        asserts = [line for line in log.splitlines() if "ASSERT" in line]
        reason = " ".join(asserts) or telling_line(log)
        raise ToolchainError(f"the chip emulator stopped: {reason}")


def emulator_env(toolchain: TpuMlir, chip: Chip, links: Path) -> dict[str, str]:
    """The toolchain's variables, with the chip's libraries under the names the runtime opens.

    The vendor's runner changes links inside the installed package instead, so that two at once
    for different chips get each other's chip. These links belong to one process.
    """
    env = toolchain.env()
    libraries = toolchain.package / "lib"
    for name, file in (("libcmodel.so", chip.cmodel), ("libbmlib.so.0", chip.bmlib)):
        (links / name).symlink_to(libraries / file)
    return {**env, "LD_LIBRARY_PATH": os.pathsep.join([str(links), env["LD_LIBRARY_PATH"]])}


def ordered_inputs(inputs: Mapping[str, Array], ports: Sequence[PortAt]) -> list[Array]:
    """The inputs in the ports' order; raises ValueError naming every port that does not fit."""
    wanted = {port.name: (port.dtype, port.shape) for port in ports}
    given = {name: (array.dtype.name, array.shape) for name, array in inputs.items()}
    wrong = [
        f"{name}: {_say(wanted.get(name))} expected, {_say(given.get(name))} given"
        for name in {**wanted, **given}
        if wanted.get(name) != given.get(name)
    ]
    if wrong:
        raise ValueError("inputs do not fit the compiled network: " + "; ".join(wrong))
    return [np.ascontiguousarray(inputs[port.name]) for port in ports]


def _say(port: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if port is None else f"{port[0]} {list(port[1])}"


def check_stage(described: Mapping[str, Any], record: StageRecord, bmodel: Path) -> None:
    """Raise ToolchainError unless the file holds a stage with exactly the record's ports."""
    wanted = {
        side: [{"shape": list(port.shape), "dtype": port.dtype} for port in ports]
        for side, ports in (("inputs", record.inputs), ("outputs", record.outputs))
    }
    if described["network"] != record.network or wanted not in described["stages"]:
        raise ToolchainError(
            f"{bmodel}: network {record.network} with {wanted} was expected; the file holds "
            f"network {described['network']} with {described['stages']}: run the same compile again"
        )
