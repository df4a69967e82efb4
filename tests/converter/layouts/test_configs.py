"""A config that agrees is silent; each value that does not is named with the weights' own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from converter.families.controlnet import copied_part
from converter.layouts.configs import config_problems
from examples.small_models import SMALL


def written(path: Path, config: dict[str, object]) -> Path:
    path.write_text(json.dumps(config))
    return path


def test_values_that_agree_are_silent(tmp_path: Path) -> None:
    unet = {
        "block_out_channels": [32, 64, 96, 128],
        "attention_head_dim": [8, 8, 8, 8],
        "sample_size": 64,
    }
    path = written(tmp_path / "config.json", {**unet, "out_channels": None})
    assert config_problems({"unet": path}, SMALL) == []
    assert config_problems({"unet": path}, None) == []
    assert config_problems({"unet": path}, replace(SMALL, unet=None)) == []


def test_each_contradiction_is_named_with_both_values(tmp_path: Path) -> None:
    path = written(
        tmp_path / "config.json",
        {"in_channels": 9, "block_out_channels": [32, 64], "attention_head_dim": [5, 8, 8, 8]},
    )
    found = [problem.partition(" says ")[2] for problem in config_problems({"unet": path}, SMALL)]
    assert found == [
        "in_channels 9, the weights and their family say 4",
        "block_out_channels [32, 64], the weights and their family say (32, 64, 96, 128)",
        "attention_head_dim [5, 8, 8, 8], the weights and their family say (8, 8, 8, 8)",
    ]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"global_pool_conditions": True}, "averaged over the picture"),
        ({"controlnet_conditioning_channel_order": "bgr"}, "blue first"),
        ({"cross_attention_dim": 768}, "the weights and their family say 64"),
    ],
)
def test_a_controlnet_that_no_graph_computes_is_told(
    config: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "config.json", config)
    assert SMALL.unet is not None
    model = replace(SMALL, controlnets=(SMALL.unet, copied_part(SMALL.unet)))
    (problem,) = config_problems({"controlnet_2": path}, model)
    assert problem.startswith(f"controlnet_2: {path} says") and reason in problem
    plain = {"global_pool_conditions": False, "controlnet_conditioning_channel_order": "rgb"}
    assert config_problems({"controlnet_2": written(path, plain)}, model) == []
