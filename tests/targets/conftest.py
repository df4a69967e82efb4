"""The tpu-mlir toolchain: the real one for slow tests, a few lines of fake for the others."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

from converter.progress import silent
from targets.base import ToolchainError
from targets.sophgo.toolchain import RECORD_FILE, TpuMlir
from targets.toolchains import find_python

PROFILE = """\
Conv2D_3204|CONV|s:1255096|b:11579|g:1451|e:1255239|t:144
API_END total_cycle:1255343|b:11580|g:1452
TCYC : 1255343
GDMA SUMMARY : |dr[0] S2L:15185860|dr[1] L2S:1245712|dr[2] S2S:64|dr[3] L2L:0
DDR BW USAGE : 19.04759938%

flops: 126177152, runtime: 1.255343ms, ComputationAbility: 0.100512T
"""
"""The end of a profile as the compiler wrote it for a small UNet."""

FAKE_PYTHON = """\
    #!{python} -IS
    import pathlib, sys
    script = pathlib.Path(sys.argv[1]).name
    if script == "importer.py":
        if b"broken" in open(sys.argv[2], "rb").read():
            print("Traceback (most recent call last):\\n  File x, line 1\\n    frame")
            sys.exit("RuntimeError: Op not support:{{'IsNaN'}}")
        pathlib.Path(sys.argv[5]).write_text("mlir")
    elif script == "model_deploy.py":
        precision, bmodel = sys.argv[5], sys.argv[9]
        pathlib.Path(bmodel).write_text(f"bmodel {{precision}} {{pathlib.Path.cwd()}}")
        pathlib.Path("x_final.mlir").write_text("final mlir")
        pathlib.Path("compiler_profile_0.txt").write_text('''{profile}''')
        for _ in range(3):
            print("[Success]: tpuc-opt")
    elif script == "emulator_driver.py":
        print("ASSERT info: wrong gdma type", file=sys.stderr)
        sys.exit(255)
"""

FAKE_MODEL_TOOL = """\
    #!{python} -IS
    import sys
    if sys.argv[1] == "--combine":
        *sources, _, output = sys.argv[2:]
        open(output, "w").write("".join(open(source).read() + "\\n" for source in sources))
    else:
        text = open(sys.argv[2]).read()
        for i in range(len(text.splitlines())):
            print(f"stage {{i}}, core num: 1")
        print("device mem size: 6 (weight: 1, instruct: 2, runtime: 3)")
"""


@pytest.fixture(scope="session")
def tpu_mlir() -> TpuMlir:
    """The installed toolchain; installs it where a Python 3.10 exists."""
    toolchain = TpuMlir()
    if toolchain.problem() is not None:
        try:
            find_python(toolchain.python_version)
        except ToolchainError as e:
            pytest.skip(f"tpu-mlir cannot be installed here: {e}")
        toolchain.install(silent)
    return toolchain


@pytest.fixture
def fake_tpu_mlir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TpuMlir:
    """A folder that looks installed, whose programs write a few words instead of compiling."""
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    toolchain = TpuMlir()
    _executable(toolchain.python, FAKE_PYTHON)
    _executable(toolchain.program("model_tool"), FAKE_MODEL_TOOL)
    _executable(toolchain.program("tpuc-opt"), "    #!{python} -IS\n")
    toolchain.third_party.mkdir(parents=True)
    (toolchain.folder / RECORD_FILE).write_text(json.dumps({"version": toolchain.version}))
    return toolchain


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    filled = textwrap.dedent(text).format(python=sys.executable, profile=PROFILE)
    path.write_text(filled)
    path.chmod(0o755)
