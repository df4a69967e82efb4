"""The OpenCL of this machine as a device for TVM, whose wheel has none: compiled at first need."""

import hashlib
import subprocess
from pathlib import Path

from converter.files import replacing
from targets.processes import ChildFailedError, run_logged
from targets.tvm.toolchain import Tvm

SOURCE = Path(__file__).with_name("inside") / "opencl_device.cc"

HEADERS = Path("/usr/include/CL/cl.h")

INSTALL = "apt install pocl-opencl-icd ocl-icd-opencl-dev opencl-headers"


def opencl_device(toolchain: Tvm) -> Path | None:
    """The plug-in, compiled if it is not there yet; None where there is no OpenCL."""
    compiler = toolchain.compiler
    if compiler is None or not HEADERS.is_file():
        return None
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    plugin = toolchain.folder / f"opencl_device-{key}.so"
    if plugin.is_file():
        return plugin
    log = toolchain.folder / "opencl_device.log"
    try:
        with replacing(plugin) as work:
            argv: list[str | Path] = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared"]
            argv += ["-o", work, SOURCE, *wheel_flags(toolchain), "-lOpenCL"]
            run_logged(argv, log, env=toolchain.env())
    except ChildFailedError:
        return None  # an OpenCL without its library, most likely; the log says
    return plugin


def wheel_flags(toolchain: Tvm) -> list[str]:
    """What a C++ compiler is told of the headers and libraries in TVM's wheel."""
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
    return flags
