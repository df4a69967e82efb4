"""Kind, family and hyper-parameters from headers alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.inspection import inspect
from examples.small_models import SMALL
from tests.conftest import SmallModel


def save(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    safetensors.numpy.save_file({n: np.zeros(s, np.float16) for n, s in shapes.items()}, path)
    return path


def test_a_checkpoint_gives_back_the_architecture_it_was_made_from(small_model: SmallModel) -> None:
    found = inspect(small_model.checkpoint)
    assert found.kind == "checkpoint"
    assert found.family == "sd15"
    assert found.architecture == SMALL
    assert found.problems == []
    assert all(facts.present and facts.dtype == "F16" for facts in found.components.values())


def test_json_has_the_documented_keys(small_model: SmallModel) -> None:
    record = inspect(small_model.checkpoint).to_json()
    assert record["schema"] == 1
    assert record["components"]["unet"] == {
        "present": True, "parameters": 6872036, "dtype": "F16",
    }  # fmt: skip
    assert record["prediction_type"]["value"] == "epsilon"
    assert "sd15" in record["prediction_type"]["decided_by"]
    assert record["architecture"]["unet"]["block_channels"] == [32, 64, 96, 128]


def test_a_lora_tells_its_rank_and_family(small_model: SmallModel) -> None:
    record = inspect(small_model.lora).to_json()
    assert record["kind"] == "lora"
    assert record["adapter"]["kind"] == "LoRA"
    assert record["adapter"]["rank"] == [4]
    assert record["adapter"]["target_family"] == "sd15"


UNET = "model.diffusion_model."
TO_K = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = "lora_unet_" + BLOCK.replace(".", "_")
STEM = UNET + "input_blocks.0.0.weight"
LABEL = UNET + "label_emb.0.0.weight"
PROJ_IN = UNET + "input_blocks.1.1.proj_in.weight"

FILES: dict[str, tuple[dict[str, tuple[int, ...]], str, str]] = {
    "sd2": (
        {STEM: (8, 4, 3, 3), UNET + TO_K: (8, 1024), PROJ_IN: (8, 8)},
        "checkpoint",
        "sd2",
    ),
    "sdxl": ({STEM: (8, 4, 3, 3), LABEL: (8, 2816)}, "checkpoint", "sdxl"),
    "refiner": ({STEM: (384, 4, 3, 3), LABEL: (8, 2560)}, "checkpoint", "sdxl-refiner"),
    "vae": ({"first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3)}, "vae", "unknown"),
    "bare vae": ({"decoder.conv_in.weight": (8, 4, 3, 3)}, "vae", "unknown"),
    "controlnet": (
        {"control_model.input_hint_block.0.weight": (8, 3, 3, 3)},
        "controlnet",
        "unknown",
    ),
    "text encoder": (
        {"text_model.encoder.layers.0.mlp.fc1.weight": (8, 4)},
        "text_encoder",
        "unknown",
    ),
    "something else": ({"weights": (3,)}, "unknown", "unknown"),
    "sdxl lora": ({"lora_te2_text_model_x.lora_down.weight": (4, 8)}, "lora", "sdxl"),
    "sd2 lora": ({f"{KOHYA}.lora_down.weight": (4, 1024)}, "lora", "sd2"),
    "peft lora": ({f"unet.{BLOCK}.lora_A.weight": (4, 768)}, "lora", "sd15"),
    "flux lora": ({"lora_unet_double_blocks_0_x.lora_down.weight": (4, 8)}, "lora", "flux"),
}


@pytest.mark.parametrize("case", FILES)
def test_kind_and_family_of_other_files(tmp_path: Path, case: str) -> None:
    shapes, kind, family = FILES[case]
    found = inspect(save(tmp_path / "file.safetensors", shapes))
    assert (found.kind, found.family) == (kind, family)


def test_the_marker_of_v_prediction_decides(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        UNET + "input_blocks.0.0.weight": (8, 4, 3, 3), UNET + "label_emb.0.0.weight": (8, 2816),
        "v_pred": (0,),
    }  # fmt: skip
    record = inspect(save(tmp_path / "v.safetensors", shapes)).to_json()
    assert record["prediction_type"]["value"] == "v_prediction"
    assert "v_pred" in record["prediction_type"]["decided_by"]


def test_missing_and_strange_tensors_are_all_named(small_model: SmallModel, tmp_path: Path) -> None:
    tensors = safetensors.numpy.load_file(small_model.checkpoint)
    del tensors[UNET + "out.2.bias"]
    tensors[UNET + "out.0.bias"] = np.zeros(7, np.float16)
    tensors[UNET + "extra.weight"] = np.zeros(3, np.float16)
    tensors["model_ema.decay"] = np.zeros(1, np.float32)
    path = tmp_path / "odd.safetensors"
    safetensors.numpy.save_file(tensors, path)
    problems = "\n".join(inspect(path).problems)
    assert "out.2.bias is missing" in problems
    assert "out.0.bias is [7], [32] was expected" in problems
    assert "extra.weight" in problems
    assert "model_ema" not in problems
