"""tpu-mlir in its own Python 3.10: where it is, how to call its programs, whether it is whole."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from converter.progress import Progress
from targets.base import ToolchainError
from targets.environments import RECORD_FILE
from targets.processes import telling_line
from targets.sophgo.chips import CHIPS
from targets.toolchains import Proof, Toolchain

GLIBC_FILES = ("libc.so.6", "libm.so.6", "libpthread.so.0")
"""glibc 2.35, shipped in the package and found by its programs through their RPATH: where the
system's glibc is another, every program dies with "stack smashing detected"."""


class TpuMlir(Toolchain):
    """Sophgo's compiler, chip emulator and file tools."""

    name = "tpu-mlir"
    version = "1.30.2"
    python_version = (3, 10)
    targets = tuple(CHIPS)
    variables = ("TPUC_ROOT", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH")

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where it is installed; another folder while it is being built."""
        return self._folder or super().folder

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def package(self) -> Path:
        """The vendor's package: programs, libraries, Python modules."""
        return self.folder / "lib" / "python3.10" / "site-packages" / "tpu_mlir"

    @property
    def libraries(self) -> Path:
        """The vendor's shared libraries, chips' emulators and kernel modules among them."""
        return self.package / "lib"

    @property
    def third_party(self) -> Path:
        """Shared libraries that the package brings along."""
        return self.libraries / "third_party"

    def program(self, name: str) -> Path:
        """One of the vendor's binaries: ``tpuc-opt``, ``model_tool``."""
        return self.package / "bin" / name

    def script(self, name: str) -> Path:
        """One of the vendor's Python tools, to be run with `python`.

        Run directly: the console scripts in `bin` turn every exit code into 1, and hold the
        absolute path under which the environment was built.
        """
        return self.package / "python" / "tools" / name

    def env(self) -> dict[str, str]:
        """The variables that the vendor's `envsetup` would set, on top of this process's own."""
        own = super().env()
        root = self.package
        search = {
            "PATH": (
                root / "bin",
                root / "python/tools",
                self.folder / "bin",
                os.environ.get("PATH", os.defpath),
            ),
            "PYTHONPATH": (root, root / "python", root / "customlayer/python"),
            "LD_LIBRARY_PATH": (root / "lib", root / "lib/capi", self.third_party),
        }
        joined = {name: os.pathsep.join(map(str, places)) for name, places in search.items()}
        return {**own, **joined, "TPUC_ROOT": str(root)}

    def describe(self, bmodel: Path) -> str:
        """What `model_tool --info` says about a file. Raises ToolchainError."""
        said = subprocess.run(
            [str(self.program("model_tool")), "--info", str(bmodel)],
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if said.returncode != 0:
            raise ToolchainError(f"{bmodel}: no readable bmodel: {telling_line(said.stdout)}")
        return said.stdout

    def in_use(self) -> AbstractContextManager[None]:
        """Compile while the block runs: others may too, but nobody builds the environment anew.

        Several at once do not meet. Of the vendor's tools only the runner of bmodels, which is not
        used here, changes files in the package; the compiler writes below its working folder.
        """
        return self._locked(fcntl.LOCK_SH)

    def alone(self) -> AbstractContextManager[None]:
        """Wait until nobody uses this toolchain, then keep others out."""
        return self._locked(fcntl.LOCK_EX)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        lock = self.folder.with_name(f"{self.folder.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("a") as file:
            fcntl.flock(file, how)
            yield

    def problem(self) -> str | None:
        """Why it cannot be used, in one line with what to do; None when it is ready."""
        again = f"'sdconv toolchain install {self.name}"
        if not (self.folder / RECORD_FILE).is_file() or not self.python.exists():
            return f"{self.name} {self.version} is not installed: run {again}'"
        back = [name for name in GLIBC_FILES if (self.third_party / name).exists()]
        if back:
            return (
                f"{self.third_party} holds {', '.join(back)} of another glibc, with which the "
                f"programs of {self.name} crash: run {again} --force'"
            )
        return None

    def install(self, progress: Progress, *, force: bool = False) -> bool:
        """Build the environment; False when it was there already. Raises ToolchainError."""
        from targets.sophgo.installation import install

        with self.alone():
            if not force and self.problem() is None:
                return False
            install(self, progress)
        return True

    def prove(self, progress: Progress) -> list[Proof]:
        """Compile a small network for every chip and precision and run it on the emulator."""
        from targets.sophgo.doctor import prove

        self.check_ready()
        return prove(self, progress)
