"""The small checkpoint's weights as diffusers, transformers and torch store them."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from huggingface_hub import save_torch_state_dict

from tests.conftest import SmallModel
from tests.converter import reference_models as references

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def weights(small_model: SmallModel) -> Weights:
    """The small checkpoint's tensors, float16."""
    state: Weights = safetensors.torch.load_file(small_model.checkpoint)
    return state


@pytest.fixture(scope="session")
def modules(weights: Weights) -> dict[str, Any]:
    """Part -> diffusers' or transformers' module with the same weights, float32."""
    return {
        "unet": references.unet("sd15", weights),
        "vae": references.vae(weights),
        "text_encoder": references.clip_l(weights, layers=2, prefix=None),
    }


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
