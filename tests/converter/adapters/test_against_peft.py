"""What PEFT trains and saves: its own merge is the reference, its configuration the metadata."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from converter.adapters.peft_metadata import PeftSettings
from converter.errors import InputError
from tests.converter.adapters.one_layer import bound, merged, relative

LAYERS: dict[str, Callable[[], torch.nn.Linear | torch.nn.Conv2d]] = {
    "linear": lambda: torch.nn.Linear(16, 24),
    "convolution": lambda: torch.nn.Conv2d(8, 8, 3),
}
LORA = {"r": 4, "lora_alpha": 10}
CONFIGS: dict[str, Any] = {
    "LoRA": peft.LoraConfig(target_modules=["layer"], **LORA),
    "rsLoRA": peft.LoraConfig(target_modules=["layer"], use_rslora=True, **LORA),
    "DoRA": peft.LoraConfig(target_modules=["layer"], use_dora=True, **LORA),
    "alpha by pattern": peft.LoraConfig(
        target_modules=["layer"], alpha_pattern={"layer": 3}, **LORA
    ),
    "LoHa": peft.LoHaConfig(target_modules=["layer"], r=4, alpha=4),
    "LoKr": peft.LoKrConfig(target_modules=["layer"], r=2, alpha=2),
    "IA3": peft.IA3Config(target_modules=["layer"], feedforward_modules=[]),
    "IA3, feed-forward": peft.IA3Config(target_modules=["layer"], feedforward_modules=["layer"]),
}


class Model(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(x)
        return output


@pytest.mark.parametrize(
    ("name", "shape"),
    # PEFT's file does not tell the axis of IA3 on a convolution: see the next test.
    [(n, s) for n in CONFIGS for s in LAYERS if not (n.startswith("IA3") and s == "convolution")],
)
def test_the_merged_weight_is_pefts(name: str, shape: str) -> None:
    torch.manual_seed(0)
    original = LAYERS[shape]().double()
    weight: torch.Tensor = original.weight.detach().clone()
    model = peft.get_peft_model(Model(original), CONFIGS[name]).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.rand_like(parameter) + 0.1)
    state = peft.get_peft_model_state_dict(model)
    prefix = "base_model.model.layer"
    tensors = {key.removeprefix(f"{prefix}."): value.clone() for key, value in state.items()}
    config = CONFIGS[name].to_dict()
    listed = {key: list(v) if isinstance(v, set) else v for key, v in config.items()}
    metadata = {"lora_adapter_metadata": json.dumps(listed)} if "lora_alpha" in config else {}
    adapter = bound(tensors, weight, metadata=metadata, prefix=prefix)
    assert adapter.ledger.to_json()["used"] == len(tensors)
    wanted = model.merge_and_unload().layer.weight.detach()
    assert relative(weight, wanted) > 1e-2
    assert relative(merged(adapter, weight=weight), wanted) < 1e-12


def test_ia3_of_peft_on_a_convolution_is_no_fit() -> None:
    weight = torch.rand(8, 8, 3, 3)
    adapter = bound({"ia3_l": torch.rand(1, 8, 1, 1)}, weight, prefix="base_model.model.layer")
    assert list(adapter.ledger.to_json()["wrong_shape"]) == [
        "it does not fit a weight of [8, 8, 3, 3]"
    ]


def settings(entries: dict[str, Any]) -> PeftSettings:
    return PeftSettings(Path("x"), {"lora_adapter_metadata": json.dumps(entries)})


def test_settings_are_those_of_the_component() -> None:
    found = settings({"unet.lora_alpha": 8, "unet.use_rslora": True, "text_encoder.lora_alpha": 2})
    assert found.alpha("unet", "x") == 8.0
    assert found.alpha("text_encoder", "x") == 2.0
    assert found.alpha("text_encoder_2", "x") is None
    assert (found.divisor("unet", 16), found.divisor("text_encoder", 16)) == (4.0, 16.0)


def test_a_pattern_names_the_end_of_a_module() -> None:
    found = settings({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}})
    assert found.alpha("unet", "down.0.attn1.to_q") == 2.0
    assert found.alpha("unet", "down.0.attn2.to_q") == 8.0


def test_damaged_metadata_is_refused() -> None:
    with pytest.raises(InputError, match="lora_adapter_metadata is no JSON"):
        PeftSettings(Path("x"), {"lora_adapter_metadata": "{"})
