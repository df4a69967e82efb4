"""Sets for two hosts from the real toolchain: they conform, and spoilt ones do not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.bundle import Bundle
from converter.export import ExportRequest, export
from converter.files import blake3_of
from converter.sizes import Size
from examples.random_checkpoint import write_checkpoint
from examples.small_models import SHALLOW_SDXL
from sdconv.main import run
from targets.base import Artifact
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.bmodel.schema import Net
from targets.sophgo.bmodel.writing import header_of
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from tests.conftest import SmallModel
from validate.references import open_torch_reference

pytestmark = pytest.mark.slow


def test_the_originals_commands_give_a_set_that_its_host_loads(
    tpu_mlir: TpuMlir,
    shallow_model: SmallModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported, artifacts = tmp_path / "name", tmp_path / "models"
    command = ["export", "-u", str(shallow_model.checkpoint), "-l", str(shallow_model.lora)]
    command += ["-c", str(shallow_model.controlnet), "-b", "1", "-v", "sd15", "-o", str(exported)]
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
    spoil(artifacts, "vae_decoder", swapped_ends)
    spoil(artifacts, "unet", first_stage_alone)
    capsys.readouterr()
    assert run(["validate", str(artifacts), "--emulator-budget", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = "would not load in hosts of sd-lcm-tpu:"
    assert {line.partition(wrong)[2].strip() for line in lines if wrong in line} == {
        "stage 0 takes [1, 3, 64, 128] at input 0, which no size asked for has",
        "stage 1 takes [1, 3, 64, 64] at input 0, which no size asked for has",
        "no stage of its first network (vae_decoder) takes [1, 4, 8, 8] at input 0, which is 64x64",
        (
            "no stage of its first network (vae_decoder) takes [1, 4, 8, 16] at input 0, which is "
            "128x64"
        ),
        "no stage of its first network (unet) takes [1, 4, 8, 8] at input 0, which is 64x64",
        "the UNet has no stage for [1, 4, 8, 8] at input 0, and this file has",
    }
    assert lines[-3] == "fail: 3 of 5 files would not load in their consumer."


def test_a_set_for_the_demo_of_sdxl_is_one_that_it_loads(tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    checkpoint, artifacts = tmp_path / "sdxl.safetensors", tmp_path / "BM1684X"
    write_checkpoint(checkpoint, SHALLOW_SDXL)
    bundle = export(ExportRequest(checkpoint, tmp_path / "bundle", profile="sophon-demo"))
    request = CompileRequest(bundle.folder, "bm1684x", (Size(64, 64),), artifacts)
    manifest = compile_bundle(request)
    assert {a.path: (a.batch, a.precision) for a in manifest.artifacts} == {
        "text_encoder_1_1684x_f32.bmodel": (1, "f32"),
        "text_encoder_2_1684x_f16.bmodel": (1, "f16"),
        "unet_base_1684x_bf16.bmodel": (2, "bf16"),
        "vae_encoder_1684x_bf16.bmodel": (1, "bf16"),
        "vae_decoder_1684x_bf16.bmodel": (1, "bf16"),
    }
    found = SophgoTarget().conformance(bundle, manifest.artifacts, artifacts)
    assert [(file.consumer, file.faults) for file in found] == [("sophon-demo", ())] * 5
    # What the demo reads of both: output 1, and output 0 of the second.
    for artifact in manifest.artifacts[:2]:
        measured = run_against_torch(bundle, artifact, artifacts)
        assert max(measured) < {"f32": 1e-5, "f16": 1e-2}[artifact.precision]


def run_against_torch(bundle: Bundle, artifact: Artifact, folder: Path) -> list[float]:
    """Relative error (2-norm) of every output of a text encoder, on the chip's emulator."""
    tokens = np.full((1, 77), 49407, np.int32)
    tokens[0, :6] = (49406, 320, 1125, 539, 320, 2368)
    name = bundle.components[artifact.component].interface.inputs[0].name
    with SophgoTarget().open(artifact, folder) as runner:
        outputs = runner.infer({name: tokens})
    with open_torch_reference(bundle, artifact.component) as reference:
        wanted = reference.infer({name: tokens})
    assert list(outputs) == [
        p.name for p in bundle.components[artifact.component].interface.outputs
    ]
    return [
        float(np.linalg.norm(outputs[n] - wanted[n]) / np.linalg.norm(wanted[n])) for n in outputs
    ]


def swapped_ends(net: Net) -> Net:
    """Inputs in the place of outputs, at every stage."""
    turned = [
        replace(s, input_tensor=s.output_tensor, output_tensor=s.input_tensor)
        for s in net.parameter
    ]
    return replace(net, parameter=tuple(turned))


def first_stage_alone(net: Net) -> Net:
    """Without its second stage; the larger picture's comes first."""
    return replace(net, parameter=net.parameter[:1])


def spoil(folder: Path, component: str, change: Callable[[Net], Net]) -> None:
    """Change the tables of a component's file, and vouch for it in the manifest."""
    manifest = Manifest.load(folder)
    path = folder / next(a.path for a in manifest.artifacts if a.component == component)
    bmodel = read_bmodel(path)
    (net,) = bmodel.model.net
    content = path.read_bytes()[len(bmodel.header) :]
    spoilt = replace(bmodel.model, net=(change(net),))
    path.write_bytes(header_of(spoilt, bmodel.binary_size) + content)
    artifacts = [
        replace(a, blake3=blake3_of(path)) if a.component == component else a
        for a in manifest.artifacts
    ]
    replace(manifest, artifacts=artifacts).save()
