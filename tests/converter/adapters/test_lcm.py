"""An LCM-LoRA is recognised by what it changes, or by what its metadata says."""

from pathlib import Path

import pytest

from converter.adapters.keys import split_key
from converter.adapters.lcm import is_lcm
from converter.containers.opening import open_checkpoint
from converter.inspection import inspect

MINI = Path(__file__).parents[3] / "examples/mini"


def modules(name: str) -> set[str]:
    keys = open_checkpoint(MINI / f"{name}.safetensors").tensors
    return {split.module for split in map(split_key, keys) if split is not None}


LCM, STYLE = modules("mini-lcm-lora"), modules("mini-style-lora")


def test_inspect_names_it() -> None:
    for name, kind in (("mini-lcm-lora", "LCM-LoRA"), ("mini-style-lora", "LoRA")):
        facts = inspect(MINI / f"{name}.safetensors").adapter
        assert facts is not None and facts.kind == kind


@pytest.mark.parametrize(
    ("found", "metadata", "expected"),
    [
        (LCM, {}, True),
        (STYLE, {}, False),
        (LCM | {"lora_te_text_model_encoder_layers_0_mlp_fc1"}, {}, False),
        ({m for m in LCM if "time_emb" not in m}, {}, False),
        (LCM | {"lora_unet_conv_in"}, {}, False),
        (set(), {}, False),
        (LCM, {"ss_network_module": "lycoris.kohya"}, False),
        (STYLE, {"modelspec.title": "My LCM LoRA"}, True),
        (STYLE, {"modelspec.title": "elcmount"}, False),
    ],
)
def test_what_an_lcm_lora_is(found: set[str], metadata: dict[str, str], expected: bool) -> None:
    assert is_lcm(found, metadata) is expected
