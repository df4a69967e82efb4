"""The tpu-mlir toolchain: the real one for slow tests, a few lines of fake for the others."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.export import ExportRequest, export
from converter.progress import silent
from examples.random_checkpoint import write_checkpoint, write_controlnet, write_lora
from examples.small_models import SHALLOW
from targets.base import ToolchainError
from targets.environments import RECORD_FILE
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from targets.toolchains import find_python
from tests.conftest import SmallModel
from tests.targets.fake_compiler import MLIR
from tests.targets.sophgo_jobs import Weights, random_values

FAKE_PYTHON = """\
    #!/bin/sh
    PYTHONPATH={root} exec {python} -W error {compiler} "$@"
"""

FAKE_TPUC_OPT = """\
    #!/bin/sh
    for last; do :; done
    cp "$0.mlir" "$last"
"""

FAKE_MODEL_TOOL = """\
    #!/bin/sh
    echo "device mem size: 6 (weight: 1, instruct: 2, runtime: 3)"
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


@pytest.fixture(scope="session")
def shallow_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """Two levels of SD1.5, for what is compiled for real: a checkpoint, a LoRA, a ControlNet."""
    folder = tmp_path_factory.mktemp("shallow")
    files = [folder / f"{name}.safetensors" for name in ("shallow", "lora", "controlnet")]
    model = SmallModel(*files)
    assert SHALLOW.unet is not None and model.controlnet is not None
    write_checkpoint(model.checkpoint, SHALLOW)
    write_lora(model.lora, SHALLOW)
    write_controlnet(model.controlnet, SHALLOW.unet)
    return model


@pytest.fixture(scope="session")
def shallow_bundle(shallow_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Profile sd-lcm-tpu, with a ControlNet, one LoRA merged at 0.8."""
    assert shallow_model.controlnet is not None
    request = ExportRequest(
        shallow_model.checkpoint,
        tmp_path_factory.mktemp("bundle-shallow"),
        (AdapterChoice(shallow_model.lora, 0.8),),
        profile="sd-lcm-tpu",
        parts={"controlnet": shallow_model.controlnet},
    )
    return export(request)


@pytest.fixture
def fake_tpu_mlir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TpuMlir:
    """A folder that looks installed, whose programs write a few words instead of compiling."""
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    toolchain = TpuMlir()
    _executable(toolchain.python, FAKE_PYTHON)
    _executable(toolchain.program("model_tool"), FAKE_MODEL_TOOL)
    _executable(toolchain.program("tpuc-opt"), FAKE_TPUC_OPT)
    toolchain.program("tpuc-opt.mlir").write_text(MLIR)
    toolchain.third_party.mkdir(parents=True)
    (toolchain.folder / RECORD_FILE).write_text(json.dumps({"version": toolchain.version}))
    return toolchain


@pytest.fixture
def weights() -> Weights:
    return Weights(random_values(0), "weights")


@pytest.fixture
def target(fake_tpu_mlir: TpuMlir) -> SophgoTarget:
    return SophgoTarget()


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler = Path(__file__).with_name("fake_compiler.py")
    root = Path(__file__).parents[2]
    filled = textwrap.dedent(text).format(python=sys.executable, compiler=compiler, root=root)
    path.write_text(filled)
    path.chmod(0o755)
