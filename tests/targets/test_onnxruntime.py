"""ONNX Runtime artifacts against torch, at several sizes, and what is reused and shared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.interface import Interface
from converter.modules import load_module
from converter.sizes import Size
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint
from examples.small_models import SMALL
from targets.base import Artifact
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.onnxruntime import OnnxRuntimeTarget
from targets.registry import get_target
from tests.conftest import SmallModel

# Two runs of float32 arithmetic in different orders, on values near one.
TOLERANCE = 2e-5


def random_inputs(interface: Interface, batch: int, size: Size | None) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    inputs: dict[str, Array] = {}
    for port in interface.inputs:
        shape = port.at(batch, size)
        if port.name == "timestep":
            inputs[port.name] = np.full(shape, 301, port.dtype)
        elif port.dtype.startswith("int"):
            inputs[port.name] = rng.integers(0, 49407, shape).astype(port.dtype)
        else:
            inputs[port.name] = rng.standard_normal(shape).astype(port.dtype)
    return inputs


@pytest.mark.parametrize(
    ("profile", "sizes"),
    [
        ("sd-lcm-tpu", (Size(64, 64), Size(128, 192))),
        ("diffusers", (Size(64, 64), Size(136, 200))),  # 25 by 17 latents: odd at every level
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_every_artifact_computes_what_torch_computes(
    profile: str, sizes: tuple[Size, ...], batch: int, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    fixture = "small_bundle" if profile == "sd-lcm-tpu" else "diffusers_bundle"
    bundle: Bundle = request.getfixturevalue(fixture)
    target = get_target("onnxruntime")
    manifest = compile_bundle(
        CompileRequest(bundle.folder, "onnxruntime", sizes, tmp_path, batch=batch)
    )
    assert len(manifest.artifacts) == 1 + 3 * len(sizes)
    for artifact in manifest.artifacts:
        interface = bundle.components[artifact.component].interface
        inputs = random_inputs(interface, artifact.batch, artifact.size)
        with target.open(artifact, tmp_path) as runner:
            outputs = runner.infer(inputs)
        module = load_module(bundle, artifact.component)
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(value) for value in inputs.values()))
        expected = expected if isinstance(expected, tuple) else (expected,)
        assert list(outputs) == [port.name for port in interface.outputs]
        for value, wanted in zip(outputs.values(), expected, strict=False):
            np.testing.assert_allclose(value, wanted.numpy(), rtol=0, atol=TOLERANCE)


def test_no_weight_byte_is_copied(small_bundle: Bundle, tmp_path: Path) -> None:
    request = CompileRequest(small_bundle.folder, "onnxruntime", (Size(64, 64),), tmp_path)
    for artifact in compile_bundle(request).artifacts:
        weights = small_bundle.folder / small_bundle.components[artifact.component].weights
        assert (tmp_path / artifact.files[0]).samefile(weights)
        assert artifact.how == "bound"


def test_artifacts_run_after_the_folder_was_moved(small_bundle: Bundle, tmp_path: Path) -> None:
    request = CompileRequest(small_bundle.folder, "onnxruntime", (Size(64, 64),), tmp_path / "a")
    compile_bundle(replace(request, components=("vae_decoder",)))
    moved = (tmp_path / "a").rename(tmp_path / "b")
    artifact = Manifest.load(moved).artifacts[0]
    with get_target("onnxruntime").open(artifact, moved) as runner:
        image = runner.infer({"latent": np.zeros((1, 4, 8, 8), np.float32)})["image"]
    assert image.shape == (1, 3, 64, 64)


def test_other_weights_need_no_compilation(
    small_bundle: Bundle, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    def decoder(bundle: Bundle, folder: str) -> bool:
        request = CompileRequest(
            bundle.folder, "onnxruntime", (Size(192, 64),), tmp_path / folder,
            components=("text_encoder",),
        )  # fmt: skip
        return compile_bundle(request).artifacts[0].why.startswith("same")

    decoder(small_bundle, "a")
    assert decoder(small_bundle, "b")


def test_a_bundle_that_is_exported_meanwhile_is_noticed(
    small_model: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ExportRequest(small_model.checkpoint, tmp_path / "in", components=("vae_decoder",))
    bundle = export(request)
    bind = OnnxRuntimeTarget.bind

    def exporting(self: OnnxRuntimeTarget, *arguments: Any) -> list[Artifact]:
        write_checkpoint(small_model.checkpoint.with_name("other"), SMALL, seed=3)
        export(replace(request, checkpoint=small_model.checkpoint.with_name("other")))
        return bind(self, *arguments)

    monkeypatch.setattr(OnnxRuntimeTarget, "bind", exporting)
    compiling = CompileRequest(bundle.folder, "onnxruntime", (Size(64, 64),), tmp_path / "out")
    with pytest.raises(InputError, match="exported again while its vae_decoder was compiled"):
        compile_bundle(compiling)
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()
    assert compile_bundle(compiling).artifacts


def test_another_target_stays_in_the_manifest(small_bundle: Bundle, tmp_path: Path) -> None:
    request = CompileRequest(
        small_bundle.folder, "onnxruntime", (Size(64, 64),), tmp_path, components=("vae_decoder",)
    )
    manifest = compile_bundle(request)
    elsewhere = replace(manifest.artifacts[0], target="elsewhere")
    replace(manifest, artifacts=[*manifest.artifacts, elsewhere]).save()
    kept = compile_bundle(replace(request, sizes=(Size(128, 64),))).artifacts
    assert [(a.target, str(a.size)) for a in kept] == [
        ("elsewhere", "64x64"), ("onnxruntime", "128x64"),
    ]  # fmt: skip
