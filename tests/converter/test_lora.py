"""Adapters: every spelling finds its tensor, every key is accounted for, the sum is right."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.adapters.keys import module_table
from converter.adapters.lora import Lora, load_lora
from converter.components import rules
from converter.errors import InputError
from converter.weights import Array
from examples.small_models import SMALL

TABLES = {c: rules(c, SMALL) for c in ("unet", "text_encoder")}
BY_NAME = {c: {rule.name: rule for rule in table} for c, table in TABLES.items()}
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"
FLAT = TO_Q.replace(".", "_")


def factors(outputs: int = 32, inputs: int = 32, rank: int = 4) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    down = rng.standard_normal((rank, inputs)).astype(np.float32)
    return down, rng.standard_normal((outputs, rank)).astype(np.float32)


def load(
    path: Path, tensors: dict[str, Array], scale: float = 1.0, exported: tuple[str, ...] = ()
) -> Lora:
    safetensors.numpy.save_file(tensors, path)
    return load_lora(
        path,
        scale,
        module_table(TABLES),
        BY_NAME,
        family="sd15",
        exported=exported or ("unet", "text_encoder"),
    )


SPELLINGS = {
    "kohya": (f"lora_unet_{FLAT}.lora_down.weight", f"lora_unet_{FLAT}.lora_up.weight"),
    "kohya, original names": (
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight",
    ),
    "diffusers": (f"unet.{TO_Q}.lora_A.weight", f"unet.{TO_Q}.lora_B.weight"),
    "diffusers, old": (
        f"unet.{TO_Q.replace('.to_q', '.processor.to_q_lora')}.down.weight",
        f"unet.{TO_Q.replace('.to_q', '.processor.to_q_lora')}.up.weight",
    ),
    "diffusers, middle": (f"unet.{TO_Q}.lora.down.weight", f"unet.{TO_Q}.lora.up.weight"),
    "peft": (f"base_model.model.{TO_Q}.lora_A.weight", f"base_model.model.{TO_Q}.lora_B.weight"),
    "peft, named": (
        f"base_model.model.{TO_Q}.lora_A.default.weight",
        f"base_model.model.{TO_Q}.lora_B.default.weight",
    ),
    "original": (
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_down.weight",
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_finds_its_tensor(tmp_path: Path, spelling: str) -> None:
    down, up = factors()
    keys = SPELLINGS[spelling]
    lora = load(tmp_path / "l.safetensors", dict(zip(keys, (down, up), strict=True)), scale=0.5)
    assert sorted(lora.ledger.used) == sorted(keys)
    weight = np.zeros((32, 32), np.float32)
    merged = lora.add_to("unet", f"{TO_Q}.weight", weight)
    np.testing.assert_allclose(merged, 0.5 * up @ down, rtol=1e-6)


def test_the_old_names_of_the_output_projection_mean_its_first_layer(tmp_path: Path) -> None:
    down, up = factors()
    base = "unet." + OUT.replace(".to_out.0", ".processor.to_out_lora")
    lora = load(tmp_path / "l", {f"{base}.down.weight": down, f"{base}.up.weight": up})
    assert list(lora.modules["unet"]) == [f"{OUT}.weight"]


@pytest.mark.parametrize(
    "prefix", ["lora_te_text_model_", "lora_te1_text_model_", "text_encoder.text_model."]
)
def test_text_encoder_keys(tmp_path: Path, prefix: str) -> None:
    down, up = factors(64, 64)
    module = prefix + (Q_PROJ.replace(".", "_") if prefix.endswith("_") else Q_PROJ)
    tensors = {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}
    lora = load(tmp_path / "l", tensors)
    assert list(lora.modules["text_encoder"]) == [f"{Q_PROJ}.weight"]


def test_merging_is_exact_to_a_millionth_of_a_float64_merge(tmp_path: Path) -> None:
    down, up = factors(rank=8)
    base = f"lora_unet_{FLAT}"
    alpha = np.array(3.0, np.float32)
    tensors = {
        f"{base}.lora_down.weight": down,
        f"{base}.lora_up.weight": up,
        f"{base}.alpha": alpha,
    }
    lora = load(tmp_path / "l", tensors, scale=0.7)
    weight = np.random.default_rng(1).standard_normal((32, 32)).astype(np.float16)
    merged = lora.add_to("unet", f"{TO_Q}.weight", weight)
    exact = weight.astype(np.float64) + 0.7 * 3 / 8 * up.astype(np.float64) @ down
    assert merged.dtype == np.float32
    assert np.linalg.norm(merged - exact) / np.linalg.norm(exact) < 1e-6


def test_convolutions_merge_with_their_kernel(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    down = rng.standard_normal((4, 32, 3, 3)).astype(np.float32)
    up = rng.standard_normal((32, 4, 1, 1)).astype(np.float32)
    base = "lora_unet_down_blocks_0_resnets_0_conv1"
    lora = load(tmp_path / "l", {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up})
    name = "down_blocks.0.resnets.0.conv1.weight"
    merged = lora.add_to("unet", name, np.zeros((32, 32, 3, 3), np.float32))
    expected = np.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-5)


def test_scale_zero_leaves_the_weight_bit_for_bit(tmp_path: Path) -> None:
    down, up = factors()
    keys = SPELLINGS["kohya"]
    lora = load(tmp_path / "l", dict(zip(keys, (down, up), strict=True)), scale=0.0)
    weight = np.random.default_rng(1).standard_normal((32, 32)).astype(np.float16)
    assert lora.add_to("unet", f"{TO_Q}.weight", weight) is weight


def test_the_ledger_names_what_does_not_fit(tmp_path: Path) -> None:
    down, up = factors()
    base = f"lora_unet_{FLAT}"
    lora = load(
        tmp_path / "l",
        {
            f"{base}.lora_down.weight": down,
            f"{base}.lora_up.weight": up,
            "lora_unet_no_such_module.lora_down.weight": down,
            "strange": up,
            f"lora_unet_{FLAT.replace('to_q', 'to_k')}.lora_down.weight": down,
            f"lora_unet_{FLAT.replace('to_q', 'to_v')}.lora_down.weight": down[:, :8],
            f"lora_unet_{FLAT.replace('to_q', 'to_v')}.lora_up.weight": up,
        },
    )
    assert len(lora.ledger.used) == 2
    assert len(lora.ledger.unused) == 3
    assert len(lora.ledger.wrong_shape) == 2


def test_keys_of_a_component_that_is_not_exported_are_no_mistake(tmp_path: Path) -> None:
    down, up = factors()
    keys = SPELLINGS["kohya"]
    tensors = dict(zip(keys, (down, up), strict=True))
    lora = load(tmp_path / "l", tensors, exported=("text_encoder",))
    assert len(lora.ledger.not_exported) == 2
    assert lora.ledger.unused == []


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.dora_scale", "DoRA"),
        ("lora_unet_x.oft_blocks", "OFT"),
        ("lora_unet_x.diff", "full difference"),
        ("model.diffusion_model.out.2.weight", "-u"),
        ("lora_unet_double_blocks_0_x.lora_down.weight", "flux"),
        ("lora_te2_text_model_x.lora_down.weight", "sdxl"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(tmp_path: Path, key: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load(tmp_path / "l", {key: np.zeros((4, 8), np.float32)})
