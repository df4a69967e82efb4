"""The merged weights and the graphs against an independent path: diffusers' own converters, peft.

Nothing of `converter.families` or `converter.adapters` takes part in the reference.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from converter.bundle import Bundle
from converter.weights import Array
from passes.weights import TRANSPOSED
from tests.conftest import SmallModel
from tests.converter import reference_models as references

SCALE = 0.8


@pytest.fixture(scope="module")
def original(small_model: SmallModel) -> Mapping[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = safetensors.torch.load_file(small_model.checkpoint)
    return state


@pytest.fixture(scope="module")
def reference(original: Mapping[str, torch.Tensor], small_model: SmallModel) -> Any:
    """Diffusers' modules with diffusers' weights, the LoRA fused by peft."""
    pipe = StableDiffusionPipeline(
        vae=references.vae(original),
        text_encoder=references.clip_l(original, layers=2, prefix=None),
        tokenizer=None,
        unet=references.unet("sd15", original),
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
