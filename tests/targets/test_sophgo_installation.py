"""Mending the vendor's package: what is changed, what is refused, and that twice is once."""

import platform
import sys
from pathlib import Path

import pytest

from targets.base import ToolchainError
from targets.sophgo import installation
from targets.sophgo.installation import REPAIRS, check_machine, mend, without_torch
from targets.sophgo.toolchain import TpuMlir

ONNX_OPT = """\
import numpy as np
import torch
from onnx import helper


def run(inputs, names):
    ############ torch.LayerNorm ############
    return [torch.tensor(inputs[name]).numpy() for name in names]
"""
WITHOUT_TORCH = ONNX_OPT.replace("import torch\n", "").replace(
    "torch.tensor(inputs[name]).numpy()", "np.asarray(inputs[name])"
)


def test_the_one_use_of_torch_is_replaced() -> None:
    path, repairs = Path("OnnxOpt.py"), REPAIRS["transform/OnnxOpt.py"]
    assert without_torch(ONNX_OPT, path, repairs) == WITHOUT_TORCH
    assert without_torch(WITHOUT_TORCH, path, repairs) == WITHOUT_TORCH


@pytest.mark.parametrize(
    "unknown",
    [
        ONNX_OPT.replace("torch.tensor", "torch.as_tensor"),
        ONNX_OPT + "\nx = torch.zeros(3)\n",
        ONNX_OPT + "\ny = [torch.tensor(inputs[name]).numpy()]\n",
    ],
)
def test_an_unknown_text_is_refused(unknown: str) -> None:
    with pytest.raises(ToolchainError, match=r"OnnxOpt\.py.*not the tpu-mlir 1\.30\.2"):
        without_torch(unknown, Path("OnnxOpt.py"), REPAIRS["transform/OnnxOpt.py"])


def test_mending_moves_glibc_aside_and_makes_tools_executable(tmp_path: Path) -> None:
    toolchain = TpuMlir(tmp_path)
    toolchain.third_party.mkdir(parents=True)
    for name in ("libc.so.6", "libm.so.6", "libpthread.so.0", "libz.so.1"):
        (toolchain.third_party / name).write_text(name)
    onnx_opt = toolchain.package / "python" / "transform" / "OnnxOpt.py"
    tool = toolchain.script("model_deploy.py")
    for file, text in {onnx_opt: ONNX_OPT, tool: ""}.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for _ in range(2):
        mend(toolchain)
        assert [file.name for file in toolchain.third_party.iterdir()] == ["libz.so.1"]
        assert onnx_opt.read_text() == WITHOUT_TORCH
        assert tool.stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize(
    ("system", "libc", "said"),
    [("darwin", ("", ""), "Linux on x86_64 only"), ("linux", ("glibc", "2.31"), "2.34 or newer")],
)
def test_a_machine_that_cannot_run_it_is_told_at_once(
    system: str, libc: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(ToolchainError, match=said):
        check_machine()


def test_every_pin_is_exact_or_explained() -> None:
    lines = installation.PINS.read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "tpu_mlir==1.30.2" in pins
    assert [pin for pin in pins if "==" not in pin] == ["setuptools<81"]
