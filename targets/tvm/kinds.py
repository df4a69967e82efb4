"""The targets that TVM compiles for, as data: which libraries are made, and what runs them here."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADRENO = "qcom/adreno-opencl"
"""TVM's name for OpenCL C as Adreno's compiler likes it."""

PHONE = {"kind": "llvm", "mtriple": "aarch64-linux-android"}


WHEELS_BRING_OPENCL = sys.platform == "linux" and platform.machine() == "x86_64"
"""Whether TVM's environment has an OpenCL for the processor."""


@dataclass(frozen=True)
class Build:
    """A library: `target` and `host` as TVM describes them, `library` its file.

    `host` None: all of it runs on the processor. `runner` says which device of this machine runs
    it: cpu, opencl, or None for what is for another machine.
    """

    library: str
    target: str | Mapping[str, Any]
    host: Mapping[str, Any] | None = None
    runner: str | None = None

    def request(self) -> dict[str, Any]:
        """As `inside/compile.py` takes it."""
        return {"library": self.library, "target": self.target, "host": self.host}


@dataclass(frozen=True)
class Kind:
    """One target. The first of `builds` is what an artifact is named after.

    `library` is what a phone's GPU computes with: CLML where it can, or OpenCL alone.
    """

    name: str
    summary: str
    chip: str | None
    precisions: tuple[str, ...]
    library: str | None = None
    unproven: str | None = None

    @property
    def clml(self) -> bool:
        """Whether CLML has a part."""
        return self.library == "CLML"

    def builds(self, precision: str) -> tuple[Build, ...]:
        """The libraries of one program."""
        here = this_processor()
        if self.chip is None:
            return (Build("library.so", here, runner="cpu"),)
        phone = Build("library.tar", ADRENO, PHONE)
        if precision == "f32" and WHEELS_BRING_OPENCL:  # PoCL on a CPU knows no float16
            return phone, Build("opencl.so", ADRENO, here, runner="opencl")
        return phone, Build("here.so", here, runner="cpu")


KINDS = {
    kind.name: kind
    for kind in (
        Kind("tvm", "one library per component and size; the CPU of this machine", None, ("f32",)),
        Kind(
            "adreno-clml",
            "phones with an Adreno: convolutions, products, attention on CLML, the rest in OpenCL, "
            "a VAE's attention by MNN; a twin runs here",
            "adreno",
            ("f16", "f32"),
            library="CLML",
            unproven="a twin ran here, with CLML's graphs computed by their definition: CLML's own "
            "arithmetic and limits, float16 in OpenCL and speed are for a phone to prove ('sdconv "
            "adreno runner' writes the test)",
        ),
        Kind(
            "adreno-opencl",
            "phones with an Adreno: all of it in OpenCL, but a VAE's attention by MNN; a twin runs "
            "here",
            "adreno",
            ("f16", "f32"),
            library="OpenCL",
            unproven="a twin ran here: float16 in OpenCL and speed are for a phone to prove "
            "('sdconv adreno runner' writes the test)",
        ),
    )
}


def this_processor() -> dict[str, Any]:
    """TVM's description of the processors that a library is for: those like this machine's."""
    flags = Path("/proc/cpuinfo")
    known = flags.read_text() if flags.is_file() else ""
    if platform.machine() == "x86_64" and " avx2 " in known and " fma " in known:
        return {"kind": "llvm", "mcpu": "x86-64-v3"}
    return {"kind": "llvm"}
