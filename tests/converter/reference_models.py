"""Modules of diffusers and transformers with a file's weights, by diffusers' own converters.

Nothing of `converter.families` or `converter.modules` takes part: the configurations are written
as the models' authors publish them, at the widths of `examples.small_models`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

State = Mapping[str, torch.Tensor]

_SD15 = {"block_out_channels": (32, 64, 96, 128), "cross_attention_dim": 64}
_BK_SDM = {
    **_SD15,
    "layers_per_block": 1,
}
_BK_SDM_TINY = {
    **_BK_SDM,
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}
_SD2 = {
    "block_out_channels": (64, 64, 128, 128),
    "cross_attention_dim": 128,
    "attention_head_dim": [1, 1, 2, 2],
    "use_linear_projection": True,
}
_SDXL = {
    "block_out_channels": (64, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 1, 2],
    "cross_attention_dim": 192,
    "attention_head_dim": [1, 1, 2],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 128 + 6 * 256,
}
_KOALA_700M = {
    **_SDXL,
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 2, 5],
    "mid_block_type": None,
}

UNETS: dict[str, dict[str, Any]] = {
    "sd15": _SD15,
    "sd15-inpaint": {**_SD15, "in_channels": 9},
    "sd15-pix2pix": {**_SD15, "in_channels": 8},
    "sd15-lcm": {**_SD15, "time_cond_proj_dim": 256},
    "bk-sdm-base": _BK_SDM,
    "bk-sdm-small": {**_BK_SDM, "mid_block_type": None},
    "bk-sdm-tiny": _BK_SDM_TINY,
    "bk-sdm-tiny-lcm": {**_BK_SDM_TINY, "time_cond_proj_dim": 256},
    "sd2": _SD2,
    "sd2-inpaint": {**_SD2, "in_channels": 9},
    "sd2-pix2pix": {**_SD2, "in_channels": 8},
    "sdxl": _SDXL,
    "sdxl-inpaint": {**_SDXL, "in_channels": 9},
    "sdxl-pix2pix": {**_SDXL, "in_channels": 8},
    "sdxl-lcm": {**_SDXL, "time_cond_proj_dim": 256},
    "sdxl-refiner": {
        **_SDXL,
        "block_out_channels": (64, 64, 128, 128),
        "down_block_types": (
            "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D",
        ),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 1,
        "cross_attention_dim": 128,
        "attention_head_dim": [1, 1, 2, 2],
        "projection_class_embeddings_input_dim": 128 + 5 * 256,
    },
    "ssd-1b": {
        **_SDXL,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    },
    "segmind-vega": {**_SDXL, "mid_block_type": "UNetMidBlock2D"},
    "koala-700m": _KOALA_700M,
    "koala-1b": {
        **_KOALA_700M,
        "transformer_layers_per_block": [1, 2, 6],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
    },
}  # fmt: skip
"""Name in `examples.small_models.MODELS` -> keyword arguments of `UNet2DConditionModel`."""


def unet(name: str, file: State) -> Any:
    """Return diffusers' UNet. Its converter knows no LCM: that one tensor is added by hand."""
    model = UNet2DConditionModel(**UNETS[name])
    state = convert_ldm_unet_checkpoint(dict(file), dict(model.config))
    condition = file.get("model.diffusion_model.time_embed.cond_proj.weight")
    if condition is not None:
        state["time_embedding.cond_proj.weight"] = condition
    model.load_state_dict(state)
    return model.float().eval()


def vae(file: State) -> Any:
    """Return diffusers' autoencoder."""
    model = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    model.load_state_dict(convert_ldm_vae_checkpoint(dict(file), dict(model.config)))
    return model.float().eval()


def clip_l(file: State, *, layers: int, prefix: str | None) -> Any:
    """Return the CLIP of SD1.x or SDXL, all layers and the final norm included."""
    config = CLIPTextConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=1,
        vocab_size=49408,
        eos_token_id=2,
    )
    model: Any = CLIPTextModel(config)
    state = convert_ldm_clip_checkpoint(dict(file), prefix)
    model.load_state_dict({name.removeprefix("text_model."): t for name, t in state.items()})
    return model.float().eval()


def open_clip(file: State, prefix: str, *, layers: int, projected: bool) -> Any:
    """Return a text encoder that the file holds in OpenCLIP's layout, its first `layers`."""
    config = CLIPTextConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act="gelu",
        projection_dim=128,
        vocab_size=49408,
        eos_token_id=2,
    )
    model: Any = CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)
    state = convert_open_clip_checkpoint(model, dict(file), prefix)
    if not projected:
        state = {name.removeprefix("text_model."): t for name, t in state.items()}
    found = model.load_state_dict(state, strict=False)
    assert not found.missing_keys
    assert all(f"layers.{layers}." in name for name in found.unexpected_keys)
    return model.float().eval()


def controlnet(name: str, file: State) -> Any:
    """Return diffusers' ControlNet for a UNet of that name, from a file in the original layout."""
    model: Any = ControlNetModel.from_unet(
        UNet2DConditionModel(**UNETS[name]), load_weights_from_unet=False
    )
    state = convert_controlnet_checkpoint(dict(file), dict(model.config))
    added = {
        f"add_embedding.linear_{1 + i}.{kind}": file[f"control_model.label_emb.0.{2 * i}.{kind}"]
        for i in range(2)
        for kind in ("weight", "bias")
        if f"control_model.label_emb.0.{2 * i}.{kind}" in file
    }
    model.load_state_dict({**state, **added})
    return model.float().eval()
