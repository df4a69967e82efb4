"""Running a bmodel on the vendor's chip emulator: a driver process that is asked line by line."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from converter.weights import Array
from targets.base import Runner, ToolchainError
from targets.driver import Driver, ordered_inputs
from targets.sophgo.chips import Chip
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir

INSIDE = Path(__file__).with_name("inside")


class EmulatorRunner(Runner):
    """One stage of a bmodel on the emulator. Ports bind by position, as on the device.

    The compiled network renames its outputs, so names, order and shapes come from `record`, and
    every stage that the file claims to hold is compared with it before anything runs.
    """

    def __init__(self, toolchain: TpuMlir, chip: Chip, bmodel: Path, record: StageRecord) -> None:
        if chip.no_emulator is not None:
            raise ToolchainError(f"{bmodel}: {chip.no_emulator}")
        self._record = record
        self._open = ExitStack()
        try:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            argv = [toolchain.python, INSIDE / chip.emulator.driver, bmodel.absolute()]
            env = emulator_env(toolchain, chip, folder)
            self._driver = Driver("the chip emulator", argv, env, folder)
            self._open.callback(self._driver.close)
            check_stage(self._driver.described, record, bmodel)
        except BaseException:
            self.close()
            raise

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises ValueError for a wrong port, ToolchainError when the emulator fails."""
        outputs = self._driver.run(ordered_inputs(inputs, self._record.inputs))
        names = [port.name for port in self._record.outputs]
        return dict(zip(names, outputs, strict=True))

    def close(self) -> None:
        """End the driver, mid-inference if need be, and remove its files."""
        self._open.close()


def emulator_env(toolchain: TpuMlir, chip: Chip, links: Path) -> dict[str, str]:
    """The toolchain's variables, and those by which the runtime finds the chip's libraries.

    The vendor's runner changes links inside the installed package instead, so that two at once
    for different chips get each other's chip. `links` belongs to one process, which runs there.
    """
    env, emulator = toolchain.env(), chip.emulator
    libraries = toolchain.libraries
    if emulator.bmlib is None:
        env["TPU_EMULATOR_PATH"] = str(libraries / emulator.library)
        env["TPU_SCALAER_EMULATOR_WORKDIR"] = "."  # (sic) where its sockets go, else to /tmp
        if emulator.chip_cores is not None:
            env["TPU_RT_CORE_NUM"] = str(emulator.chip_cores)
        return env
    for name, file in (("libcmodel.so", emulator.library), ("libbmlib.so.0", emulator.bmlib)):
        (links / name).symlink_to(libraries / file)
    return {**env, "LD_LIBRARY_PATH": os.pathsep.join([str(links), env["LD_LIBRARY_PATH"]])}


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
