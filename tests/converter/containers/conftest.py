"""The small checkpoint's weights as diffusers, transformers and torch store them."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from huggingface_hub import save_torch_state_dict
from transformers import CLIPTextConfig, CLIPTextModel

from examples.small_models import SMALL
from tests.conftest import SmallModel

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def weights(small_model: SmallModel) -> Weights:
    """The small checkpoint's tensors, float16."""
    state: Weights = safetensors.torch.load_file(small_model.checkpoint)
    return state


@pytest.fixture(scope="session")
def modules(weights: Weights) -> dict[str, Any]:
    """Part -> diffusers' or transformers' module with the same weights, float32."""
    arch, text, vae_arch = SMALL.unet, SMALL.text_encoder, SMALL.vae
    assert arch is not None and text is not None and vae_arch is not None
    unet = UNet2DConditionModel(
        block_out_channels=arch.block_channels,
        cross_attention_dim=arch.context_dim,
        attention_head_dim=arch.attention_heads,
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), dict(unet.config)))
    vae = AutoencoderKL(
        block_out_channels=vae_arch.block_channels,
        layers_per_block=vae_arch.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(weights), dict(vae.config)))
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=text.vocabulary,
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
        )
    )
    states = convert_ldm_clip_checkpoint(dict(weights))
    clip.load_state_dict({k.removeprefix("text_model."): v.float() for k, v in states.items()})
    return {"unet": unet, "vae": vae, "text_encoder": clip}


@pytest.fixture(scope="session")
def diffusers_folder(modules: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full precision in shards (the VAE in one file), and the variant fp16 beside it."""
    folder = tmp_path_factory.mktemp("diffusers")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    shards = {"unet": "10MB", "vae": "1GB", "text_encoder": "1MB"}
    for part, module in modules.items():
        module.save_pretrained(folder / part, max_shard_size=shards[part])
        module.half().save_pretrained(folder / part, max_shard_size=shards[part], variant="fp16")
        module.float()
    return folder


@pytest.fixture(scope="session")
def sharded(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a single-file checkpoint in shards."""
    folder = tmp_path_factory.mktemp("sharded")
    save_torch_state_dict(weights, folder, max_shard_size="8MB")
    return folder / "model.safetensors.index.json"


@pytest.fixture(scope="session")
def pickled(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .ckpt as training tools write it: the state dict beside other things, in a zip."""
    path = tmp_path_factory.mktemp("pickled") / "model.ckpt"
    torch.save({"state_dict": weights, "global_step": 7, "callbacks": {slice: Path("a")}}, path)
    return path


@pytest.fixture(scope="session")
def pickled_before_zip(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .ckpt in the format before torch 1.6."""
    path = tmp_path_factory.mktemp("pickled") / "legacy.ckpt"
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=False)
    return path
