"""The merged weights and the graphs against an independent path: diffusers' own converters, peft.

Nothing of `converter.families` or `converter.adapters` takes part in the reference.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.export import ExportRequest, export
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


def _train(module: Any, config: Any, folder: Path) -> Mapping[str, torch.Tensor]:
    """Give PEFT's adapter random values, save it, and return the weights it merges to."""
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        model = peft.get_peft_model(module, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_embedding_layers=False)
    state: Mapping[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return state


def test_folders_of_peft_merge_to_what_it_merges(
    original: Mapping[str, torch.Tensor], small_model: SmallModel, tmp_path: Path
) -> None:
    attention = "encoder.layers.0.self_attn"
    configs = {
        "unet": peft.OFTConfig(target_modules=["to_q", "proj_in"], oft_block_size=8),
        "text_encoder": peft.LoraConfig(
            target_modules=["q_proj", "v_proj", "position_embedding"],
            alpha_pattern={f"^{attention}.q_proj": 3},
        ),
    }
    modules = {
        "unet": references.unet("sd15", original),
        "text_encoder": references.clip_l(original, layers=2, prefix=None),
    }
    merged = {c: _train(modules[c], config, tmp_path / c) for c, config in configs.items()}
    bundle = export(
        ExportRequest(
            small_model.checkpoint,
            tmp_path / "out",
            tuple(AdapterChoice(tmp_path / component) for component in configs),
            components=tuple(configs),
        )
    )
    for record, changed in zip(bundle.adapters, configs, strict=True):
        assert record["ledger"]["used"] == record["ledger"]["total"] > 0
        assert record["modules"].keys() == {changed} and record["config_blake3"]
    for component, state in merged.items():
        weights = bundle.weights(component)
        for name in weights.names():
            wanted = state[name.removesuffix(TRANSPOSED)].detach().numpy()
            wanted = wanted.T if name.endswith(TRANSPOSED) else wanted
            # PEFT rotates in float32.
            np.testing.assert_allclose(
                weights.read(name).reshape(-1), wanted.reshape(-1), rtol=0, atol=1e-6, err_msg=name
            )


def test_another_configuration_is_another_adapter(small_model: SmallModel, tmp_path: Path) -> None:
    keys = set()
    for alpha in (8, 9):
        module = "base_model.model.down_blocks.0.attentions.0.proj_in"
        tensors = {
            f"{module}.lora_A.weight": torch.ones(8, 32, 1, 1),
            f"{module}.lora_B.weight": torch.ones(32, 8, 1, 1),
        }
        safetensors.torch.save_file(tensors, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text(f'{{"lora_alpha": {alpha}, "r": 8}}')
        choice = AdapterChoice.parse(f"{tmp_path}:0.5")
        request = ExportRequest(small_model.checkpoint, tmp_path / "out", (choice,))
        keys.add(export(replace(request, components=("unet",))).components["unet"].weights_key)
    assert len(keys) == 2
