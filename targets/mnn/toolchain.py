"""MNN's wheel in an environment of its own: where it is, how it is run, whether it is whole.

Its wheel wants nothing but numpy and would fit beside this program, but for one thing: the console
script `mnnconvert` calls `pip install` at every start, with the first pip on the PATH, to send
usage data. Here the converter is only ever called through its C entry, in a child process.
"""

import os
import sys
from pathlib import Path

from converter.progress import Event, Progress
from targets.base import ToolchainError
from targets.environments import RECORD_FILE, new_environment, write_record
from targets.processes import ChildFailedError, run_logged
from targets.toolchains import Proof, Toolchain, build_environment

PACKAGES = ("MNN==3.6.1", "numpy>=2,<3")

OTHER_PYTHON = "SDCONV_MNN_PYTHON"
"""The environment variable that names a Python whose MNN has more back-ends than the wheel's."""


class Mnn(Toolchain):
    """MNN's converter and runtime, through its Python API."""

    name = "mnn"
    version = "3.6.1"
    targets = ("mnn", "mnn-opencl", "adreno-clml", "adreno-opencl")

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    def problem(self) -> str | None:
        """Why it cannot be used, in one line with what to do; None when it is ready."""
        if (self.folder / RECORD_FILE).is_file() and self.python.exists():
            return None
        return f"MNN {self.version} is not installed: run 'sdconv toolchain install {self.name}'"

    def install(self, progress: Progress, *, force: bool = False) -> bool:
        """Build the environment; False when it was there already. Raises ToolchainError."""
        if not force and self.problem() is None:
            return False
        stage = f"install {self.name} {self.version}"
        progress(Event(stage, 0.0))
        python = Path(sys.executable)
        with new_environment(self.folder) as building:

            def on_line(line: str) -> None:
                if line.startswith("Installing collected"):
                    progress(Event(stage, 0.8))

            inside = build_environment(python, building.work, [PACKAGES], building.log, on_line)
            try:
                run_logged([inside, "-c", "import MNN, _tools"], building.log, env=self.env())
            except ChildFailedError as e:
                raise ToolchainError(
                    f"the installed MNN does not start: {e}; full log: {building.log}"
                ) from e
            write_record(building.work, self.name, self.version, python, self.env())
        progress(Event(stage, 1.0, f"installed in {self.folder}"))
        return True

    def prove(self, progress: Progress) -> list[Proof]:
        """Convert a small network in every format, bind others' weights to it and run it."""
        from targets.mnn.doctor import prove

        self.check_ready()
        return prove(self, progress)


def runtime_python(toolchain: Mnn, backend: str = "cpu") -> Path:
    """The Python whose MNN runs models: that of the environment, or the user's own.

    Raises ToolchainError for a back-end that the environment's MNN was not built with.
    """
    named = os.environ.get(OTHER_PYTHON)
    if named is None and backend != "cpu":
        raise ToolchainError(
            f"the MNN that is installed has no back-end {backend}: set {OTHER_PYTHON} to a Python "
            "whose MNN was built with it, on a machine with such a device"
        )
    if named is None:
        return toolchain.python
    if not Path(named).is_file():
        raise ToolchainError(f"{OTHER_PYTHON}={named}: there is no such program")
    return Path(named)
