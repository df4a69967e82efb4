"""The original tool's commands on the small model, compiled by the real toolchain."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from converter.files import blake3_of
from examples.random_checkpoint import write_controlnet
from examples.small_models import SMALL
from sdconv.main import run
from targets.manifest import Manifest
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.bmodel.writing import header_of
from targets.sophgo.toolchain import TpuMlir
from tests.conftest import SmallModel

pytestmark = pytest.mark.slow


def test_the_originals_commands_give_a_set_that_its_host_loads(
    tpu_mlir: TpuMlir,
    small_model: SmallModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    controlnet, exported = tmp_path / "controlnet.safetensors", tmp_path / "name"
    artifacts = tmp_path / "models"
    assert SMALL.unet is not None
    write_controlnet(controlnet, SMALL.unet)
    command = ["export", "-u", str(small_model.checkpoint), "-l", str(small_model.lora)]
    command += ["-c", str(controlnet), "-b", "1", "-v", "sd15", "-o", str(exported)]
    assert run(command) == 0
    command = ["compile", "-n", str(exported), "-o", str(artifacts)]
    command += ["-s", "64", "64", "128", "64", "-b", "1", "-v", "sd15"]
    assert run([*command, "--no-validate"]) == 0
    assert {path.name for path in artifacts.glob("*.bmodel")} == {
        "sdv15_text.bmodel",
        "sdv15_unet_multisize.bmodel",
        "sdv15_ve_multisize.bmodel",
        "sdv15_vd_multisize.bmodel",
        "sdv15_cn_multisize.bmodel",
    }
    assert run(["validate", str(artifacts), "--emulator-budget", "0"]) == 0
    report = json.loads((artifacts / "report.json").read_text())
    assert report["verdict"] == "incomplete"
    assert [file["faults"] for file in report["conformance"]] == [[]] * 5
    assert {file["reader"] for file in report["conformance"]} == {"model_tool of tpu-mlir 1.30.2"}
    assert "Whether the consumer loads them" in (artifacts / "report.html").read_text()
    _take_last_stage_out(artifacts)
    capsys.readouterr()
    assert run(["validate", str(artifacts), "--emulator-budget", "0"]) == 1
    out = capsys.readouterr().out
    assert "no stage of its first network (unet) takes [1, 4, 8, 8] at input 0" in out
    assert "1 of 5 files would not load in their consumer" in out


def _take_last_stage_out(folder: Path) -> None:
    """Leave the UNet's first stage, at which sizes are stored largest first, and vouch for it."""
    path = folder / "sdv15_unet_multisize.bmodel"
    bmodel = read_bmodel(path)
    (net,) = bmodel.model.net
    short = replace(bmodel.model, net=(replace(net, parameter=net.parameter[:1]),))
    content = path.read_bytes()[len(bmodel.header) :]
    path.write_bytes(header_of(short, bmodel.binary_size) + content)
    manifest = Manifest.load(folder)
    artifacts = [
        replace(a, blake3=blake3_of(path)) if a.component == "unet" else a
        for a in manifest.artifacts
    ]
    replace(manifest, artifacts=artifacts).save()
