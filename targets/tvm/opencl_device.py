"""An OpenCL for the processor as a device for TVM, whose wheel has none: compiled at first need."""

import hashlib
import subprocess
from pathlib import Path

from converter.files import replacing
from targets.base import ToolchainError
from targets.processes import ChildFailedError, run_logged
from targets.tvm.toolchain import Tvm

SOURCE = Path(__file__).with_name("inside") / "opencl_device.cc"
HEADER = SOURCE.with_name("opencl.h")


def opencl_device(toolchain: Tvm) -> Path:
    """The plug-in, compiled if it is not there yet. Raises ToolchainError where that fails."""
    toolchain.check_ready()
    key = hashlib.sha256(SOURCE.read_bytes() + HEADER.read_bytes()).hexdigest()[:16]
    plugin = toolchain.folder / f"opencl_device-{key}.so"
    if plugin.is_file():
        return plugin
    log = toolchain.folder / "opencl_device.log"
    try:
        with replacing(plugin) as work:
            argv: list[str | Path] = [str(toolchain.compiler), "-std=c++17", "-O1", "-fPIC"]
            argv += ["-shared", "-o", work, SOURCE, *wheel_flags(toolchain)]
            run_logged(argv, log, env=toolchain.env())
    except ChildFailedError as e:
        raise ToolchainError(f"the device for OpenCL does not compile: {e}; see {log}") from e
    return plugin


def wheel_flags(toolchain: Tvm) -> list[str]:
    """What a C++ compiler is told of the headers and libraries in TVM's environment."""
    question = "import tvm, tvm_ffi; print(tvm.__path__[0]); print(tvm_ffi.__path__[0])"
    said = subprocess.run(
        [toolchain.python, "-c", question],
        env=toolchain.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    flags = []
    for place, library in zip(said.stdout.split("\n")[:2], ("tvm_runtime", "tvm_ffi"), strict=True):
        flags += [f"-I{place}/include", f"-L{place}/lib", f"-Wl,-rpath,{place}/lib", f"-l{library}"]
    if toolchain.opencl is not None:
        flags += [str(toolchain.opencl), f"-Wl,-rpath,{toolchain.opencl.parent}"]
    return flags
