"""Spellings: every trainer's names find the one tensor that they mean."""

from pathlib import Path

import pytest
import safetensors.numpy

from converter.adapters.binding import AdaptedModel
from converter.adapters.choice import AdapterChoice
from converter.adapters.keys import PREFIXES, adapter_kind, module_table
from converter.adapters.load import load_adapter
from converter.components import rules
from converter.families.published import SD15
from converter.weights import Array
from examples.small_models import SMALL
from tests.converter.adapters.test_ledger import TABLES, zeros

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
LDM = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"
OLD = TO_Q.replace(".to_q", ".processor.to_q_lora")


def flat(name: str) -> str:
    return name.replace(".", "_")


UNET = {
    "kohya": f"lora_unet_{flat(TO_Q)}.lora_*.weight",
    "kohya, original names": f"lora_unet_{flat(LDM)}.lora_*.weight",
    "OneTrainer": f"lora_unet.{TO_Q}.lora_*.weight",
    "OMI": f"unet.{TO_Q}.lora_*.weight",
    "diffusers": f"unet.{TO_Q}.lora_AB.weight",
    "diffusers, middle": f"unet.{TO_Q}.lora.*.weight",
    "diffusers, old": f"unet.{OLD}.*.weight",
    "diffusers, old, alone": f"{OLD}.*.weight",
    "diffusers, linear": f"unet.{TO_Q}.lora_linear_layer.*.weight",
    "PEFT": f"base_model.model.{TO_Q}.lora_AB.weight",
    "PEFT, named": f"base_model.model.{TO_Q}.lora_AB.default.weight",
    "PEFT in diffusers": f"unet.base_model.model.{TO_Q}.lora_AB.weight",
    "original": f"diffusion_model.{LDM}.lora_*.weight",
}
TEXT = {
    "kohya": f"lora_te_text_model_{flat(Q_PROJ)}.lora_*.weight",
    "kohya, first of two": f"lora_te1_text_model_{flat(Q_PROJ)}.lora_*.weight",
    "OneTrainer": f"lora_te.text_model.{Q_PROJ}.lora_*.weight",
    "OMI": f"clip_l.text_model.{Q_PROJ}.lora_*.weight",
    "diffusers": f"text_encoder.text_model.{Q_PROJ}.lora_linear_layer.*.weight",
    "diffusers, old": f"text_encoder.text_model.{Q_PROJ.replace('q_proj', 'to_q_lora')}.*.weight",
    "PEFT": f"base_model.model.text_model.{Q_PROJ}.lora_AB.weight",
    "PEFT with transformers 5": f"base_model.model.{Q_PROJ}.lora_AB.weight",
}


def tensors(spelling: str, size: int) -> dict[str, Array]:
    down, up = ("A", "B") if "AB" in spelling else ("down", "up")
    mark = "AB" if "AB" in spelling else "*"
    return {
        spelling.replace(mark, down): zeros(4, size),
        spelling.replace(mark, up): zeros(size, 4),
    }


def changed(folder: Path, file: dict[str, Array]) -> dict[str, list[str]]:
    path = folder / "lora.safetensors"
    safetensors.numpy.save_file(file, path)
    model = AdaptedModel.of("sd15", TABLES, ("unet", "text_encoder"))
    adapter = load_adapter(AdapterChoice(path), model)
    return {component: list(changes) for component, changes in adapter.changes.items()}


@pytest.mark.parametrize("spelling", UNET)
def test_spellings_of_a_unet_module(tmp_path: Path, spelling: str) -> None:
    assert changed(tmp_path, tensors(UNET[spelling], 32)) == {"unet": [f"{TO_Q}.weight"]}


@pytest.mark.parametrize("spelling", TEXT)
def test_spellings_of_a_text_encoder_module(tmp_path: Path, spelling: str) -> None:
    found = changed(tmp_path, tensors(TEXT[spelling], 64))
    assert found == {"text_encoder": [f"{Q_PROJ}.weight"]}


def test_the_old_names_of_the_output_projection_mean_its_first_layer(tmp_path: Path) -> None:
    spelling = "unet." + OUT.replace(".to_out.0", ".processor.to_out_lora") + ".*.weight"
    assert changed(tmp_path, tensors(spelling, 32)) == {"unet": [f"{OUT}.weight"]}


def test_a_second_text_encoder_is_a_prefix_away(tmp_path: Path) -> None:
    table = module_table({"text_encoder_2": TABLES["text_encoder"]})
    for prefix in ("lora_te2_text_model_", "text_encoder_2_text_model_", "clip_g_text_model_"):
        assert table[prefix + flat(Q_PROJ)] == ("text_encoder_2", Q_PROJ)


def test_no_spelling_means_two_modules() -> None:
    for architecture in (SMALL, SD15):
        spellings = [
            spelling
            for component in ("unet", "text_encoder")
            for rule in rules(component, architecture)
            if rule.name.endswith(".weight")
            for spelling in module_table({component: [rule]})
        ]
        assert len(spellings) == len(set(spellings)) > 1000
    assert set(PREFIXES) >= {"unet", "text_encoder", "text_encoder_2"}


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["x.lora_down.weight", "x.alpha"], "LoRA"),
        (["x.lora_A.weight", "x.lora_magnitude_vector"], "LoRA + DoRA"),
        (["x.hada_w1_a", "y.lokr_w1"], "LoHa + LoKr"),
        (["x.oft_diag"], "OFT"),
        (["x.weight", "x.on_input"], "IA3"),
        (["x.a1.weight"], "GLoRA"),
        (["x.w_norm", "x.b_norm"], "norm bias difference + norm difference"),
        (["x.weight", "x.bias", "x.alpha"], None),
    ],
)
def test_the_kind_of_a_file(keys: list[str], kind: str | None) -> None:
    assert adapter_kind(keys) == kind
