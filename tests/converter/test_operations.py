"""Counted operations, against what torch counts in diffusers' and transformers' own modules."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from converter.families.controlnet import copied_part
from converter.families.published import SD15, SDXL
from converter.operations import operations
from converter.sizes import Size
from examples.small_models import MODELS
from tests.converter.reference_models import UNETS


def counted(module: torch.nn.Module, *arguments: Any, **named: Any) -> int:
    """Additions and multiplications of one call on the meta device."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*arguments, **named)
    return int(counter.get_total_flops())


def run_unet(config: dict[str, Any], batch: int, size: Size) -> int:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).eval()
        sample = torch.empty(batch, config.get("in_channels", 4), size.height // 8, size.width // 8)
        text = torch.empty(batch, 77, config["cross_attention_dim"])
        extra: dict[str, Any] = {}
        if "addition_embed_type" in config:
            ids = (config["projection_class_embeddings_input_dim"] - 128) // 256
            extra["added_cond_kwargs"] = {
                "text_embeds": torch.empty(batch, 128),
                "time_ids": torch.empty(batch, ids),
            }
        if "time_cond_proj_dim" in config:
            extra["timestep_cond"] = torch.empty(batch, config["time_cond_proj_dim"])
        return counted(unet, sample, torch.empty(batch), text, **extra)


@pytest.mark.parametrize("name", UNETS)
def test_every_family_of_unets(name: str) -> None:
    size = Size(104, 72)  # sides that no level halves evenly
    expected = run_unet(UNETS[name], 2, size)
    assert operations("unet", MODELS[name], 2, size) == expected


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_controlnets(name: str) -> None:
    model = MODELS[name]
    assert model.unet is not None
    model = replace(model, controlnets=(copied_part(model.unet),))
    with torch.device("meta"):
        net: Any = ControlNetModel.from_unet(UNet2DConditionModel(**UNETS[name]))
        extra: dict[str, Any] = {}
        if name == "sdxl":
            ids = {"text_embeds": torch.empty(1, 128), "time_ids": torch.empty(1, 6)}
            extra["added_cond_kwargs"] = ids
        expected = counted(
            net.eval(),
            torch.empty(1, 4, 8, 16),
            torch.empty(1),
            torch.empty(1, 77, UNETS[name]["cross_attention_dim"]),
            torch.empty(1, 3, 64, 128),
            **extra,
        )
    assert operations("controlnet", model, 1, Size(128, 64)) == expected


def test_both_halves_of_the_vae_at_full_size() -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()
        encoded = counted(vae.encode, torch.empty(1, 3, 72, 104))
        decoded = counted(vae.decode, torch.empty(1, 4, 9, 13))
    assert operations("vae_encoder", SD15, 1, Size(104, 72)) == encoded
    assert operations("vae_decoder", SD15, 1, Size(104, 72)) == decoded


def test_text_encoders_at_full_size() -> None:
    names = {"text_encoder": (CLIPTextModel, 768, 11), "text_encoder_2": (
        CLIPTextModelWithProjection, 1280, 32)}  # fmt: skip
    for component, (kind, width, layers) in names.items():
        config = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            projection_dim=width,
        )
        with torch.device("meta"):
            encoder: Any = kind(config)
            expected = counted(encoder.eval(), torch.zeros(1, 77, dtype=torch.int64))
        assert operations(component, SDXL, 1, None) == expected


def test_full_size_unets_agree_with_the_vendor_compiler() -> None:
    """tpu-mlir counts 808.8 and 1306 GFLOP for SD1.5's and 6788 for SDXL's, norms included."""
    for architecture, size, gflop in (
        (SD15, Size(512, 512), 808.8),
        (SD15, Size(512, 768), 1306.0),
        (SDXL, Size(1024, 1024), 6788.0),
    ):
        ratio = operations("unet", architecture, 1, size) / (gflop * 1e9)
        assert 0.99 < ratio <= 1
