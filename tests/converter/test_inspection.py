"""Kind, family and hyper-parameters from headers alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.checkpoint import TensorInfo
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.families.prediction import Prediction, detect_prediction
from converter.families.variants import variant
from converter.inspection import inspect
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS, SMALL
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
DEEP_TO_K = UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
LABEL = UNET + "label_emb.0.0.weight"
PROJ_IN = UNET + "input_blocks.1.1.proj_in.weight"

FILES: dict[str, tuple[dict[str, tuple[int, ...]], str, str]] = {
    "sd2": (
        {STEM: (8, 4, 3, 3), UNET + TO_K: (8, 1024), PROJ_IN: (8, 8)},
        "checkpoint",
        "sd2",
    ),
    "sdxl": ({STEM: (8, 4, 3, 3), DEEP_TO_K: (8, 2048), LABEL: (8, 2816)}, "checkpoint", "sdxl"),
    "refiner": (
        {STEM: (384, 4, 3, 3), DEEP_TO_K: (8, 1280), LABEL: (8, 2560)},
        "checkpoint",
        "sdxl-refiner",
    ),
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
    "embedding": ({"emb_params": (2, 768)}, "textual_inversion", "unknown"),
    "sdxl embedding": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "textual_inversion", "unknown"),
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


NOT_EXPORTED: dict[str, dict[str, tuple[int, ...]]] = {
    "sd2-depth": {STEM: (8, 5, 3, 3), PROJ_IN: (8, 8)},
    "sd2-unclip": {STEM: (8, 4, 3, 3), UNET + TO_K: (8, 1024), LABEL: (8, 2048)},
    "x4-upscaler": {STEM: (8, 7, 3, 3), UNET + "label_emb.weight": (1000, 8)},
    "playground-v2.5": {STEM: (8, 4, 3, 3), LABEL: (8, 2816), "edm_mean": (1, 4, 1, 1)},
    "cosxl": {STEM: (8, 4, 3, 3), LABEL: (8, 2816), "edm_vpred.sigma_max": (1,)},
    "stable-video": {STEM: (8, 8, 3, 3), UNET + "input_blocks.1.0.time_stack.x": (8,)},
    "flux": {"double_blocks.0.img_attn.norm.key_norm.scale": (8,)},
    "sd3": {UNET + "joint_blocks.0.context_block.adaLN_modulation.1.bias": (8,)},
}


@pytest.mark.parametrize("family", NOT_EXPORTED)
def test_families_that_are_not_exported_are_refused_by_name(family: str, tmp_path: Path) -> None:
    path = save(tmp_path / "file.safetensors", NOT_EXPORTED[family])
    found = inspect(path)
    assert found.family == family
    assert found.problems[0].startswith(f"{family} is not exported: ")
    request = ExportRequest(path, tmp_path / "out")
    with pytest.raises(InputError, match=f"a {family} checkpoint, which is not exported: "):
        export(request)
    assert not request.output.exists()


VARIANTS = {
    "sd15": "base", "sd15-inpaint": "inpaint", "sd15-pix2pix": "instruct-pix2pix",
    "sd15-lcm": "LCM", "bk-sdm-base": "BK-SDM-Base", "bk-sdm-small": "BK-SDM-Small",
    "bk-sdm-tiny": "BK-SDM-Tiny", "bk-sdm-tiny-lcm": "BK-SDM-Tiny, LCM", "sd2": "base",
    "sd2-inpaint": "inpaint", "sdxl-full": "base", "sdxl": "fewer layers",
    "sdxl-inpaint": "fewer layers, inpaint", "sdxl-refiner": "fewer layers", "ssd-1b": "SSD-1B",
    "segmind-vega": "Segmind-Vega", "koala-700m": "KOALA-700M", "koala-1b": "KOALA-1B",
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_named(name: str) -> None:
    assert variant(MODELS[name]) == VARIANTS[name]


def predicted(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], family: str
) -> Prediction:
    tensors = {n: TensorInfo("F16", s, 0, 0) for n, s in shapes.items()}
    return detect_prediction(tensors, metadata, family, None)


def test_what_a_model_predicts_is_known_by_marker_metadata_or_family() -> None:
    assert predicted({"v_pred": (0,), "ztsnr": (0,)}, {}, "sdxl").zero_terminal_snr
    assert not predicted({"v_pred": (0,)}, {}, "sdxl").zero_terminal_snr
    stated = predicted({}, {"modelspec.prediction_type": "v"}, "sd2")
    assert (stated.type, stated.reason) == ("v_prediction", "the file's metadata says so")
    assert predicted({}, {"modelspec.prediction_type": "odd"}, "sd2").type == "unknown"
    assert "export --prediction" in predicted({}, {}, "sd2").reason
    assert predicted({}, {}, "sd15").type == "epsilon"
    inpaint = detect_prediction({}, {}, "sd2", MODELS["sd2-inpaint"])
    assert inpaint.type == "epsilon"


def test_a_fused_tensor_that_is_missing_is_named_once(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "sd2.safetensors", MODELS["sd2"])
    tensors = safetensors.numpy.load_file(tmp_path / "sd2.safetensors")
    first, last = "cond_stage_model.model.transformer.resblocks.", "attn.in_proj_weight"
    del tensors[f"{first}0.{last}"]
    del tensors[f"{first}2.{last}"]  # of the layer that nothing needs
    tensors["cond_stage_model.model.logit_scale"] = np.zeros((), np.float16)
    safetensors.numpy.save_file(tensors, tmp_path / "odd.safetensors")
    problems = inspect(tmp_path / "odd.safetensors").problems
    assert problems == [f"text_encoder: {first}0.{last} is missing"]


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
