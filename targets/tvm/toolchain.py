"""TVM's wheel in an environment of its own: where it is, how it is run, whether it is whole."""

import os
import shutil
import sys
from pathlib import Path

from converter.folders import cache_folder
from converter.progress import Event, Progress
from targets.base import ToolchainError
from targets.environments import RECORD_FILE, new_environment, write_record
from targets.processes import ChildFailedError, run_logged
from targets.toolchains import Proof, Toolchain, build_environment
from targets.tvm.kinds import WHEELS_BRING_OPENCL

PACKAGES = (
    "apache-tvm==0.27.0.post1",
    "apache-tvm-ffi==0.1.15.post2",
    "onnx==1.23.2",
    "numpy>=2,<3",
    *(["pyopencl==2026.1.4", "pocl-binary-distribution==3.0"] if WHEELS_BRING_OPENCL else []),
)
"""The last two bring an OpenCL for the processor: a loader, and PoCL, which it loads."""

COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")
"""What TVM links its objects with, in its own order; `CXX` goes before them."""


class Tvm(Toolchain):
    """TVM's compiler and runtime, through its Python API; a C++ compiler of the system links."""

    name = "tvm"
    version = "0.27.0.post1"
    targets = ("tvm", "adreno-clml", "adreno-opencl")

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def opencl(self) -> Path | None:
        """What a program that calls OpenCL is linked with; None where there is none."""
        return next(self.folder.glob("lib/python*/site-packages/pyopencl/.libs/libOpenCL*"), None)

    def env(self) -> dict[str, str]:
        """Tell the loader which OpenCL it is to take: its own, whatever else the system has."""
        if self.opencl is None:
            return super().env()
        libraries = self.opencl.parent
        return {
            **super().env(),
            "PYOPENCL_HOME": str(libraries.parent),
            "OCL_ICD_VENDORS": str(next(libraries.glob("libpocl*"))),
            "POCL_CACHE_DIR": str(cache_folder() / "pocl"),
        }

    @property
    def compiler(self) -> str | None:
        """The C++ compiler that it links with, if there is one."""
        found = (shutil.which(name) for name in COMPILERS)
        return os.environ.get("CXX") or next(filter(None, found), None)

    def problem(self) -> str | None:
        """Why it cannot be used, in one line with what to do; None when it is ready."""
        if not (self.folder / RECORD_FILE).is_file() or not self.python.exists():
            return (
                f"TVM {self.version} is not installed: run 'sdconv toolchain install {self.name}'"
            )
        if self.compiler is None:
            return (
                "TVM links what it compiles with a C++ compiler, and there is none: run 'apt "
                "install g++', or name one in CXX"
            )
        return None

    def install(self, progress: Progress, *, force: bool = False) -> bool:
        """Build the environment; False when it was there already. Raises ToolchainError."""
        if not force and (self.folder / RECORD_FILE).is_file() and self.python.exists():
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
                run_logged([inside, "-c", "import tvm.relax"], building.log, env=self.env())
            except ChildFailedError as e:
                raise ToolchainError(
                    f"the installed TVM does not start: {e}; full log: {building.log}"
                ) from e
            write_record(building.work, self.name, self.version, python, self.env())
        progress(Event(stage, 1.0, f"installed in {self.folder}"))
        return True

    def prove(self, progress: Progress) -> list[Proof]:
        """Compile a small network, bind weights to it and run it."""
        from targets.tvm.doctor import prove

        self.check_ready()
        return prove(self, progress)
