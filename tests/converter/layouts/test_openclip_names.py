"""Transformers' text encoder as OpenCLIP's file: the same numbers at OpenCLIP's places."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from converter.checkpoint import Checkpoint
from converter.layouts.openclip_names import openclip_tensors

SIZE, LAYERS, PROJECTED = 16, 2, 24


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards so small that query, key and value lie in several files."""
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=SIZE,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        projection_dim=PROJECTED,
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPTextModelWithProjection(config).save_pretrained(folder, max_shard_size="3KB")
    return folder


def test_every_tensor_is_the_one_that_openclip_calls_so(saved: Path) -> None:
    stored = Checkpoint.open(saved)
    file = stored.with_tensors(openclip_tensors(stored.tensors, last_layer_cut=False))
    block = torch.nn.MultiheadAttention(SIZE, 1).state_dict()  # OpenCLIP's attention is torch's
    layer = {f"attn.{name}" for name in block} | {
        f"{module}.{kind}"
        for module in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    }
    outside = {"token_embedding.weight", "positional_embedding", "text_projection"}
    outside |= {"ln_final.weight", "ln_final.bias"}
    blocks = {f"transformer.resblocks.{n}.{name}" for n in range(LAYERS) for name in layer}
    assert set(file.tensors) == outside | blocks
    for kind in ("weight", "bias"):
        parts = [
            stored.read(f"text_model.encoder.layers.1.self_attn.{name}_proj.{kind}")
            for name in "qkv"
        ]
        fused = f"transformer.resblocks.1.attn.in_proj_{kind}"
        assert file.tensors[fused].shape == tuple(block[f"in_proj_{kind}"].shape)
        np.testing.assert_array_equal(file.read(fused), np.concatenate(parts))
        file.release(fused)
    assert file.tensors["text_projection"].shape == (SIZE, PROJECTED)
    projection = stored.read("text_projection.weight")
    np.testing.assert_array_equal(file.read("text_projection"), projection.T)
    assert set(file.files) == set(stored.files)


def test_the_place_of_a_layer_that_was_cut_is_filled(saved: Path) -> None:
    stored = Checkpoint.open(saved)
    whole = openclip_tensors(stored.tensors, last_layer_cut=False)
    longer = openclip_tensors(stored.tensors, last_layer_cut=True)
    added = {name: info for name, info in longer.items() if name not in whole}
    assert added == {
        name.replace("resblocks.1.", "resblocks.2."): info
        for name, info in whole.items()
        if "resblocks.1." in name
    }
