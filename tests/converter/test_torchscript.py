"""The original tool's tree: its names, its ports, and what the scripts compute."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from converter import torchscript
from converter.bundle import Bundle
from converter.modules import load_module
from converter.sizes import Size
from converter.torchscript import export_torchscript

# torch itself says that jit is old; the original tool's consumers load nothing else.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


@pytest.fixture(scope="module")
def tree(small_bundle: Bundle) -> dict[str, Path]:
    files = export_torchscript(small_bundle)
    return {str(path.relative_to(small_bundle.folder)): path for path in files}


def test_names_are_the_original_ones(tree: dict[str, Path]) -> None:
    assert list(tree) == [
        "text_encoder/text_encoder.onnx",
        "unet/unet_fuse_1.pt",
        "vae_encoder/vae_encoder.pt",
        "vae_decoder/vae_decoder.pt",
    ]


def test_without_a_lora_the_unet_is_not_called_fused(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchscript, "_save_script", lambda *_: None)
    plain = replace(small_bundle, adapters=[], batch=2)
    files = [path.name for path in export_torchscript(plain)]
    assert "unet_2.pt" in files


def test_a_controlnet_has_the_name_that_the_originals_compiler_looks_for(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchscript, "_save_script", lambda *_: None)
    record = replace(small_bundle.components["unet"], name="controlnet")
    files = export_torchscript(replace(small_bundle, components={"controlnet": record}, batch=2))
    assert [str(path.relative_to(small_bundle.folder)) for path in files] == [
        "controlnet/controlnet_2.pt"
    ]


def test_scripts_compute_what_the_module_computes(
    tree: dict[str, Path], small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name, path in tree.items():
        component = small_bundle.components[name.partition("/")[0]]
        ports = component.interface.inputs
        if path.suffix == ".onnx":
            session = onnxruntime.InferenceSession(path)
            ids = rng.integers(0, 49407, (1, 77)).astype(np.int32)
            found = session.run(None, {ports[0].name: ids})[0]
            expected = load_module(small_bundle, component.name)(torch.from_numpy(ids))[0]
        else:
            values = [
                torch.from_numpy(rng.standard_normal(p.at(1, Size(512, 512))).astype(np.float32))
                for p in ports
            ]
            with torch.inference_mode():
                script = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
                found = script(*values).numpy()
                expected = load_module(small_bundle, component.name)(*values)
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0, atol=1e-4)
