"""Vendor toolchains in Python environments of their own: the contract, the list, the builder.

A vendor's compiler pins its own Python and packages, which fit nothing else. Each toolchain is
therefore built once into a folder below the data folder and only ever run as a child process.
"""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError
from converter.folders import data_folder
from converter.progress import Progress
from targets.base import ToolchainError
from targets.processes import ONLY_OURS, ChildFailedError, run_logged

Version = tuple[int, int]


@dataclass(frozen=True)
class Proof:
    """One thing `doctor` tried: what, whether it worked, and the number or reason."""

    what: str
    works: bool
    detail: str


class Toolchain(ABC):
    """One vendor's tools at one version."""

    name: str
    """As typed after `sdconv toolchain install`."""
    version: str
    targets: tuple[str, ...]
    """The targets that need it."""
    variables: tuple[str, ...] = ()
    """Those of `env` that its programs cannot do without."""

    @property
    def folder(self) -> Path:
        """Where it is installed, or would be."""
        return data_folder() / "toolchains" / f"{self.name}-{self.version}"

    def env(self) -> dict[str, str]:
        """The variables that its programs run with: this process's, but for what misleads them."""
        return {k: v for k, v in os.environ.items() if k not in ONLY_OURS}

    @abstractmethod
    def problem(self) -> str | None:
        """Why it cannot be used, in one line with what to do; None when it is ready. Cheap."""

    @abstractmethod
    def install(self, progress: Progress, *, force: bool = False) -> bool:
        """Build it; False when it was there already. Raises ToolchainError."""

    @abstractmethod
    def prove(self, progress: Progress) -> list[Proof]:
        """Compile and run something with a known answer. Raises ToolchainError when not ready."""

    def disk_bytes(self) -> int:
        """What the installation occupies, in bytes."""
        files = (Path(root) / name for root, _, names in os.walk(self.folder) for name in names)
        return sum(file.lstat().st_size for file in files)

    def check_ready(self) -> None:
        """Raise ToolchainError when it cannot be used."""
        if problem := self.problem():
            raise ToolchainError(problem)


def _mnn() -> Toolchain:
    from targets.mnn.toolchain import Mnn

    return Mnn()


def _tpu_mlir() -> Toolchain:
    from targets.sophgo.toolchain import TpuMlir

    return TpuMlir()


def _tvm() -> Toolchain:
    from targets.tvm.toolchain import Tvm

    return Tvm()


TOOLCHAINS: dict[str, Callable[[], Toolchain]] = {
    "tpu-mlir": _tpu_mlir,
    "mnn": _mnn,
    "tvm": _tvm,
}


def get_toolchain(name: str) -> Toolchain:
    """The toolchain of that name; raises InputError listing what exists."""
    if name not in TOOLCHAINS:
        raise InputError(f"unknown toolchain {name!r}: choose one of {', '.join(TOOLCHAINS)}")
    return TOOLCHAINS[name]()


def python_variable(version: Version) -> str:
    """The environment variable that names a Python of that version: ``SDCONV_PYTHON310``."""
    return f"SDCONV_PYTHON{version[0]}{version[1]}"


def find_python(version: Version) -> Path:
    """A Python of exactly that minor version that can make environments, found by running it.

    A name proves nothing (a version manager's `python3.10` shim may refuse to start), so every
    candidate is asked. The user's variable is binding: a wrong one is an error, not a hint.
    Raises ToolchainError saying what was tried and how to get one.
    """
    named = os.environ.get(python_variable(version))
    if named:
        if refusal := _refusal(Path(named), version):
            raise ToolchainError(f"{python_variable(version)}={named}: {refusal}")
        return Path(named)
    tried = []
    for candidate in dict.fromkeys(_python_places(version)):
        refusal = _refusal(candidate, version)
        if refusal is None:
            return candidate
        tried.append(f"{candidate} ({refusal})")
    dotted = f"{version[0]}.{version[1]}"
    raise ToolchainError(
        f"no Python {dotted} found (tried: {', '.join(tried) or 'nothing of that name exists'}): "
        f"get one with 'uv python install {dotted}', 'pyenv install {dotted}' or 'apt install "
        f"python{dotted}-venv' (Debian/Ubuntu, from the deadsnakes archive where the system has "
        f"another Python); or name one in {python_variable(version)}"
    )


def _python_places(version: Version) -> Iterator[Path]:
    dotted = f"{version[0]}.{version[1]}"
    name = f"python{dotted}"
    if on_path := shutil.which(name):
        yield Path(on_path)
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    for root, pattern in (
        (pyenv, f"versions/{dotted}*/bin/{name}"),
        (uv, f"cpython-{dotted}*/bin/{name}"),
        (Path("/usr/bin"), name),
        (Path("/usr/local/bin"), name),
        (Path("/opt"), f"*/bin/{name}"),
    ):
        yield from sorted(root.glob(pattern), reverse=True)


def _refusal(python: Path, version: Version) -> str | None:
    """Why this program is of no use here, or None."""
    question = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(  # noqa: PLW1510  (the return code is looked at below)
            [str(python), "-I", "-c", question],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return "does not exist" if isinstance(e, FileNotFoundError) else "does not start"
    if answer.returncode != 0:
        return "has no venv module" if "No module named" in answer.stderr else "does not start"
    found = answer.stdout.strip()
    return None if found == f"{version[0]}.{version[1]}" else f"is Python {found}"


def build_environment(
    python: Path,
    folder: Path,
    steps: Sequence[Sequence[str]],
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Make an environment and run `pip install` once per step; returns its Python.

    Only `bin/python` of the result may be used: console scripts hold the absolute path of the
    folder, which is renamed when whole. Raises ToolchainError naming the log.
    """
    own = {k: v for k, v in os.environ.items() if k not in ONLY_OURS}
    inside = folder / "bin" / "python"
    pip: list[str | Path] = [
        inside,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
    ]
    try:
        run_logged([python, "-m", "venv", folder], log, env=own)
        for step in steps:
            run_logged([*pip, *step], log, env=own, on_line=on_line)
    except ChildFailedError as e:
        raise ToolchainError(f"building the environment failed: {e.line}; full log: {log}") from e
    return inside
