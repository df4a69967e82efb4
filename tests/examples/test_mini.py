"""The committed miniature draws what it is told, and a conversion that breaks it shows at once.

Everything is drawn through the tool: export (with the LoRAs merged), runners, the sampling loop.
The judge is plain image processing, so a broken step shows as wrong pictures and not as numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.export import ExportRequest, export
from converter.inspection import inspect
from converter.modules import load_module
from converter.sizes import Size, parse_sizes
from converter.weights import Array
from examples.mini import score
from examples.mini.pictures import DAY, Scene
from examples.mini.recognise import recognise
from examples.mini.score import (
    CONTROLLED,
    FILES,
    GUIDED,
    QUICK,
    RECIPES,
    SIZES,
    SQUARE,
    accuracy,
    draw,
    fixed_scenes,
    follow_edges,
    in_place,
    outlined,
)
from runtime.sampling import Pipeline
from runtime.staging import open_artifacts, open_reference
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.registry import get_target
from targets.torch_reference import TorchReference
from validate.references import open_torch_reference

LCM, BASE = "LCM-LoRA, 4 steps", "base, 20 steps"
FEW = fixed_scenes(12)

Exported = Callable[[str], Bundle]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a recipe, once per run."""
    bundles: dict[str, Bundle] = {}

    def get(name: str) -> Bundle:
        if name not in bundles:
            bundles[name] = RECIPES[name].export(FILES, tmp_path_factory.mktemp("mini"))
        return bundles[name]

    return get


@contextmanager
def reference(bundle: Bundle, size: Size = SQUARE) -> Iterator[Pipeline]:
    with open_reference(bundle, size, open_torch_reference) as pipeline:
        yield pipeline


def drawn(bundle: Bundle, name: str, scenes: list[Scene], size: Size = SQUARE) -> list[Array]:
    with reference(bundle, size) as pipeline:
        return draw(pipeline, scenes, RECIPES[name].request)


def test_the_five_files_are_small_and_in_the_original_layouts() -> None:
    files = sorted(FILES.glob("*.safetensors"))
    assert {file.stem for file in files} == {
        "mini-controlnet", "mini-lcm-lora", "mini-sd15", "mini-sd15-dusk", "mini-style-lora",
    }  # fmt: skip
    assert sum(file.stat().st_size for file in files) < 50e6
    for name in ("mini-sd15", "mini-sd15-dusk"):
        found = inspect(FILES / f"{name}.safetensors")
        assert found.to_json()["family"] == "sd15"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "needed"), [(BASE, 0.90), (LCM, 0.85), ("dusk base", 0.85)])
def test_fifty_prompts_are_drawn_right(name: str, needed: float, exported: Exported) -> None:
    scenes = fixed_scenes()
    pictures = drawn(exported(name), name, scenes)
    assert accuracy(pictures, scenes, RECIPES[name].colours) >= needed


@pytest.mark.slow
def test_the_controlnet_puts_the_shape_where_the_edges_are() -> None:
    scenes = fixed_scenes()
    with score.reference(CONTROLLED, FILES) as pipeline:
        assert in_place(follow_edges(pipeline, scenes), scenes) >= 0.85
        without = draw(pipeline, scenes[:12], GUIDED)
    assert in_place(without, scenes[:12]) < 0.5


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_every_size_draws(size: Size, exported: Exported) -> None:
    scenes = fixed_scenes(12, size)
    pictures = drawn(exported(LCM), LCM, scenes, size)
    assert pictures[0].shape == (3, size.height, size.width)
    seen = [recognise(picture) for picture in pictures]
    coloured = [
        (s.colour, s.background) == (scene.colour, scene.background)
        for s, scene in zip(seen, scenes, strict=True)
    ]
    assert np.mean(coloured) >= 0.9
    # Chance is one in six; larger pictures were trained on less, and their shapes are rougher.
    assert accuracy(pictures, scenes, DAY) >= 0.3


def test_the_style_lora_draws_outlines(exported: Exported) -> None:
    assert outlined(drawn(exported("style LoRA"), "style LoRA", FEW), FEW) >= 0.6
    assert outlined(drawn(exported(BASE), BASE, FEW), FEW) <= 0.1


def test_a_lora_that_is_not_merged_shows(tmp_path: Path) -> None:
    style = AdapterChoice(FILES / "mini-style-lora.safetensors", scale=0.0)
    bundle = export(ExportRequest(FILES / "mini-sd15.safetensors", tmp_path, (style,)))
    assert outlined(drawn(bundle, "style LoRA", FEW), FEW) <= 0.1


def test_a_forgotten_vae_scale_shows(exported: Exported) -> None:
    with reference(exported(LCM)) as pipeline:
        forgetful = replace(pipeline, scaling_factor=1.0)
        assert accuracy(draw(forgetful, FEW, QUICK), FEW, DAY) < 0.5


def test_a_text_encoder_without_its_last_norm_shows(exported: Exported) -> None:
    bundle = exported(LCM)
    module = load_module(bundle, "text_encoder")
    module.final_layer_norm = torch.nn.Identity()
    without = TorchReference(module, ["tokens"], ["last_hidden_state", None])
    with reference(bundle) as pipeline:
        text = replace(pipeline.networks["text_encoder"], runner=without)
        broken = replace(pipeline, networks={**pipeline.networks, "text_encoder": text})
        assert accuracy(draw(broken, FEW, QUICK), FEW, DAY) < 0.5


def test_another_base_is_another_palette(exported: Exported) -> None:
    scenes = FEW
    pictures = drawn(exported("dusk base"), "dusk base", scenes)
    right_at_dusk = accuracy(pictures, scenes, RECIPES["dusk base"].colours)
    assert right_at_dusk > accuracy(pictures, scenes, DAY)


def test_onnx_runtime_draws_the_same(exported: Exported, tmp_path: Path) -> None:
    bundle = exported(LCM)
    manifest = compiled(bundle, "onnxruntime", tmp_path)
    with open_artifacts(manifest, bundle, get_target("onnxruntime"), SQUARE) as pipeline:
        pictures = draw(pipeline, FEW, QUICK)
    assert accuracy(pictures, FEW, DAY) >= 0.8
    for mine, wanted in zip(pictures, drawn(bundle, LCM, FEW), strict=True):
        assert np.abs(mine - wanted).max() < 1e-2


def test_onnx_runtime_follows_a_hint(tmp_path: Path) -> None:
    bundle = CONTROLLED.export(FILES, tmp_path / "bundle")
    manifest = compiled(bundle, "onnxruntime", tmp_path / "artifacts")
    target = get_target("onnxruntime")
    with open_artifacts(manifest, bundle, target, SQUARE, ["controlnet"]) as pipeline:
        assert in_place(follow_edges(pipeline, FEW), FEW) >= 0.8


def compiled(bundle: Bundle, target: str, output: Path) -> Manifest:
    compile_bundle(CompileRequest(bundle.folder, target, parse_sizes("64x64"), output))
    return Manifest.load(output)
