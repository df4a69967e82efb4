"""Building the tpu-mlir environment: install the pins, mend three things, check, rename.

The package needs mending because (1) it carries its own glibc, (2) imports torch for hardly
anything, and (3) ships tools without the executable bit; see `mend` for each.
"""

import ast
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from converter.progress import Event, Progress
from targets.base import ToolchainError
from targets.environments import Building, new_environment, write_record
from targets.processes import ChildFailedError, run_logged
from targets.sophgo.toolchain import GLIBC_FILES, TpuMlir
from targets.toolchains import build_environment, find_python

PINS = Path(__file__).with_name("pins.txt")
EXPECTED_DOWNLOADS = 65
"""Packages that pip collects: only the progress bar depends on it."""

OLDEST_GLIBC = (2, 34)
"""The newest symbol version that the package's binaries ask for."""

NO_IMPORT = ("import torch\n", "")
REPAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "transform/OnnxOpt.py": (
        NO_IMPORT,
        ("torch.tensor(inputs[name]).numpy()", "np.asarray(inputs[name])"),
    ),
}
"""Every mention of torch in the code of 1.30.2 that is used here: 2 GB of it would be installed to
turn an array into an array. A stand-in module named torch does not work, since transformers,
imported beside it, takes it for the real one."""


def install(toolchain: TpuMlir, progress: Progress) -> None:
    """Build under a temporary name, check it, rename. Raises ToolchainError."""
    check_machine()
    stage = f"install {toolchain.name} {toolchain.version}"
    progress(Event(stage, 0.0))
    python = find_python(toolchain.python_version)
    with new_environment(toolchain.folder) as building:
        _build(python, building, stage, progress)
        built = TpuMlir(building.work)
        mend(built)
        progress(Event(stage, 0.9))
        check_programs(built, building.log)
        write_record(building.work, built.name, toolchain.version, python, built.env())
    progress(Event(stage, 1.0, f"installed in {toolchain.folder}"))


def check_machine() -> None:
    """Raise ToolchainError where the vendor's binaries cannot run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ToolchainError(
            f"tpu-mlir exists for Linux on x86_64 only, and this is {sys.platform} on "
            f"{platform.machine()}: compile in a container or on such a machine"
        )
    name, version = platform.libc_ver()
    if name == "glibc" and tuple(map(int, version.split(".")[:2])) < OLDEST_GLIBC:
        raise ToolchainError(
            f"tpu-mlir needs glibc {OLDEST_GLIBC[0]}.{OLDEST_GLIBC[1]} or newer and this system "
            f"has {version}: use Ubuntu 22.04, Debian 12 or newer"
        )


def _build(python: Path, building: Building, stage: str, progress: Progress) -> None:
    collected = 0

    def on_line(line: str) -> None:
        nonlocal collected
        if line.startswith("Collecting "):
            collected += 1
            progress(Event(stage, min(0.6, 0.6 * collected / EXPECTED_DOWNLOADS)))
        elif line.startswith("Installing collected"):
            progress(Event(stage, 0.65))

    constraints = ["--constraint", str(PINS)]
    steps = (
        [*constraints, "setuptools", "wheel"],
        [*constraints, "tpu_mlir[onnx]", "psutil"],
    )
    build_environment(python, building.work, steps, building.log, on_line)


def mend(toolchain: TpuMlir) -> None:
    """Make the installed package usable on this system. Doing it twice changes nothing."""
    aside = toolchain.folder / "glibc-moved-aside"
    aside.mkdir(exist_ok=True)
    for name in GLIBC_FILES:
        shipped = toolchain.third_party / name
        if shipped.exists():
            shipped.replace(aside / name)
    for name, repairs in REPAIRS.items():
        module = toolchain.package / "python" / name
        module.write_text(without_torch(module.read_text(), module, repairs))
    for tool in (toolchain.package / "python" / "tools").glob("*.py"):
        tool.chmod(tool.stat().st_mode | 0o111)


def without_torch(source: str, path: Path, repairs: Sequence[tuple[str, str]]) -> str:
    """`source` with these repairs; raises ToolchainError for an unknown text."""
    if not _names_torch(source):
        return source
    repaired = source
    for old, new in repairs:
        if repaired.count(old) != 1:
            raise ToolchainError(
                f"{path}: {old.strip()!r} was expected once and is there {repaired.count(old)} "
                "times: this is not the tpu-mlir 1.30.2 that sdconv knows how to mend"
            )
        repaired = repaired.replace(old, new)
    if _names_torch(repaired):
        raise ToolchainError(
            f"{path}: still uses torch after mending: this is not the tpu-mlir 1.30.2 that "
            "sdconv knows how to mend"
        )
    return repaired


def _names_torch(source: str) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == "torch")
        or (isinstance(node, ast.Import) and any(a.name == "torch" for a in node.names))
        for node in ast.walk(ast.parse(source))
    )


def check_programs(toolchain: TpuMlir, log: Path) -> None:
    """Start each kind of program once; raises ToolchainError with its last words."""
    modules = "pymlir, transform.OnnxConverter"
    commands: tuple[list[str | Path], ...] = (
        [toolchain.program("tpuc-opt"), "--version"],
        [toolchain.python, "-c", f"import {modules}; print(pymlir.__version__)"],
    )
    for argv in commands:
        try:
            run_logged(argv, log, env=toolchain.env())
        except ChildFailedError as e:
            raise ToolchainError(
                f"the installed tpu-mlir does not start: {e}; full log: {log}"
            ) from e
