"""Diffusers' names of every tensor become the original ones: the family's table is the judge."""

import pytest

from converter.architecture import Architecture
from converter.checkpoint import TensorInfo
from converter.components import rules
from converter.families.published import SD15
from converter.families.unet import UNET_PREFIX
from converter.families.vae import VAE_PREFIX
from converter.layouts.parts import find_part, homes
from converter.layouts.unet_names import original_unet_names
from converter.layouts.vae_names import original_vae_names
from examples.small_models import MODELS, SMALL


@pytest.mark.parametrize("architecture", MODELS.values(), ids=MODELS.keys())
def test_unet_names_are_translated_one_to_one(architecture: Architecture) -> None:
    table = rules("unet", architecture)
    names = original_unet_names([rule.name for rule in table])
    assert {n: UNET_PREFIX + o for n, o in names.items()} == {r.name: r.source for r in table}


@pytest.mark.parametrize("architecture", [SD15, SMALL], ids=["full", "small"])
def test_vae_names_are_translated_one_to_one(architecture: Architecture) -> None:
    table = [r for half in ("vae_encoder", "vae_decoder") for r in rules(half, architecture)]
    names = original_vae_names([rule.name for rule in table])
    assert {n: VAE_PREFIX + o for n, o in names.items()} == {r.name: r.source for r in table}


def test_names_of_attention_before_diffusers_0_13() -> None:
    old = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out", "group_norm": "norm"}
    names = [f"decoder.mid_block.attentions.0.{name}.weight" for name in old]
    assert list(original_vae_names(names).values()) == [
        f"decoder.mid.attn_1.{name}.weight" for name in old.values()
    ]


def test_names_that_belong_nowhere_stay_as_they_are() -> None:
    odd = ["down_blocks.0.resnets.0.conv1.weight", "down_blocks.7.resnets.0.conv1.weight", "x.y"]
    assert list(original_unet_names(odd).values()) == [
        "input_blocks.1.0.in_layers.2.weight",
        "down_blocks.7.resnets.0.conv1.weight",
        "x.y",
    ]


def test_a_controlnet_is_no_unet() -> None:
    info = TensorInfo("F16", (8, 4, 3, 3), 0, 0)
    for other in ("controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight"):
        tensors = {"down_blocks.0.resnets.0.conv1.weight": info, "input_blocks.0.0.weight": info}
        assert find_part(tensors, "unet") is not None
        assert find_part({**tensors, other: info}, "unet") is None


@pytest.mark.parametrize(
    ("family", "part", "home"),
    [
        ("sd15", "text_encoder", "cond_stage_model."),
        ("sdxl", "text_encoder", "conditioner.embedders.0."),
        ("sdxl", "text_encoder_2", "conditioner.embedders.1."),
        ("sdxl-refiner", "text_encoder_2", "conditioner.embedders.0."),
    ],
)
def test_each_family_has_its_homes(family: str, part: str, home: str) -> None:
    assert homes(family)[part] == home


def test_a_whole_clip_gives_its_text_encoder() -> None:
    info = TensorInfo("F16", (8, 4), 0, 0)
    names = ["text_model.embeddings.token_embedding.weight", "vision_model.x", "logit_scale"]
    found = find_part(dict.fromkeys(names, info), "text_encoder")
    assert found is not None
    assert list(found.tensors) == ["transformer." + names[0]]


def test_an_adapter_of_a_part_is_not_the_part() -> None:
    info = TensorInfo("F16", (8, 4), 0, 0)
    assert find_part({"unet.down_blocks.0.resnets.0.conv1.lora_A.weight": info}, "unet") is None
