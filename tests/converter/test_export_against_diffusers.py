"""The merged weights and the graphs against an independent path: diffusers' own converters, peft.

Nothing of `converter.families` or `converter.adapters` takes part in the reference.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

from converter.bundle import Bundle
from converter.weights import Array
from examples.small_models import SMALL
from passes.weights import TRANSPOSED
from tests.conftest import SmallModel

SCALE = 0.8


@pytest.fixture(scope="module")
def original(small_model: SmallModel) -> Mapping[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = safetensors.torch.load_file(small_model.checkpoint)
    return state


@pytest.fixture(scope="module")
def reference(original: Mapping[str, torch.Tensor], small_model: SmallModel) -> Any:
    """Diffusers' modules with diffusers' weights, the LoRA fused by peft."""
    arch = SMALL.unet
    text, vae_arch = SMALL.text_encoder, SMALL.vae
    assert arch is not None and text is not None and vae_arch is not None
    unet = UNet2DConditionModel(
        block_out_channels=arch.block_channels,
        cross_attention_dim=arch.context_dim,
        attention_head_dim=arch.attention_heads,
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(original), dict(unet.config)))
    vae = AutoencoderKL(
        block_out_channels=vae_arch.block_channels,
        layers_per_block=vae_arch.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(original), dict(vae.config)))
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=text.vocabulary,
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            eos_token_id=2,
            bos_token_id=0,
        )
    )
    states = convert_ldm_clip_checkpoint(dict(original))
    prefix = "text_model."
    flat = {key.removeprefix(prefix): value for key, value in states.items()}
    clip.load_state_dict({k: v.float() for k, v in flat.items() if "position_ids" not in k})
    pipe = StableDiffusionPipeline(
        vae=vae.float(),
        text_encoder=clip,
        tokenizer=None,
        unet=unet.float(),
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    lora = safetensors.torch.load_file(small_model.lora)
    pipe.load_lora_weights(lora)
    pipe.fuse_lora(lora_scale=SCALE)
    pipe.unload_lora_weights()
    return pipe


def _state(reference: Any, component: str) -> dict[str, Array]:
    if component == "unet":
        state = reference.unet.state_dict()
    elif component == "text_encoder":
        state = reference.text_encoder.state_dict()
    else:
        half = ("encoder.", "quant_conv.")
        if component == "vae_decoder":
            half = ("decoder.", "post_quant_conv.")
        state = {k: v for k, v in reference.vae.state_dict().items() if k.startswith(half)}
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae_encoder", "vae_decoder"])
def test_every_weight_equals_what_diffusers_and_peft_make(
    small_bundle: Bundle, reference: Any, component: str
) -> None:
    expected = _state(reference, component)
    weights = small_bundle.weights(component)
    assert {name.removesuffix(TRANSPOSED) for name in weights.names()} == set(expected)
    for name in weights.names():
        wanted = expected[name.removesuffix(TRANSPOSED)]
        found = weights.read(name)
        if name.endswith(TRANSPOSED):
            wanted = wanted.T
        # One rounding of float32 apart: the two sum the low-rank product in another order.
        np.testing.assert_allclose(
            found.reshape(-1), wanted.reshape(-1), rtol=0, atol=2e-7, err_msg=name
        )
