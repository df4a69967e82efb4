"""Every key is accounted for with its reason, and what cannot be merged is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.adapters.adapter import Adapter
from converter.adapters.binding import AdaptedModel
from converter.adapters.choice import AdapterChoice
from converter.adapters.ledger import Status
from converter.adapters.load import load_adapter, load_adapters
from converter.components import rules
from converter.errors import InputError
from converter.weights import Array
from examples.small_models import SMALL

TABLES = {c: rules(c, SMALL) for c in ("unet", "text_encoder")}
TO_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
PARTS = {"lora_down.weight": (4, 32), "lora_up.weight": (32, 4), "alpha": ()}


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def lora(module: str, **shapes: tuple[int, ...]) -> dict[str, Array]:
    return {f"{module}.{part}": zeros(*shape) for part, shape in {**PARTS, **shapes}.items()}


def load(
    folder: Path, tensors: dict[str, Array], exported: tuple[str, ...] = ("unet", "text_encoder")
) -> Adapter:
    path = folder / "adapter.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return load_adapter(AdapterChoice(path), AdaptedModel.of("sd15", TABLES, exported))


K = TO_Q.replace("to_q", "to_k")
CASES: dict[str, tuple[dict[str, Array], Status, str]] = {
    "whole": (lora(K), Status.USED, "changes unet"),
    "unknown module": (lora("lora_unet_nowhere"), Status.UNUSED, "no such module"),
    "unknown ending": ({f"{K}.odd": zeros(1)}, Status.UNUSED, "no known kind"),
    "half": ({f"{K}.lora_up.weight": zeros(32, 4)}, Status.UNUSED, "needs down.*up"),
    "alpha alone": ({f"{K}.alpha": zeros()}, Status.UNUSED, "nothing it goes with"),
    "no bias": ({f"{K}.diff_b": zeros(32)}, Status.UNUSED, "has no bias"),
    "wrong inputs": (
        {f"{K}.lora_down.weight": zeros(4, 8), f"{K}.lora_up.weight": zeros(32, 4)},
        Status.WRONG_SHAPE,
        r"weight of \[32, 32\]",
    ),
    "wrong magnitudes": (
        {**lora(K), f"{K}.dora_scale": zeros(5, 1)},
        Status.WRONG_SHAPE,
        r"weight of \[32, 32\]",
    ),
    "scalars": (
        {f"{K}.lora_down.weight": zeros(), f"{K}.lora_up.weight": zeros()},
        Status.WRONG_SHAPE,
        "does not fit",
    ),
    "other family": (
        {f"{K.replace('blocks_0_attn1', 'blocks_7_attn1')}.alpha": zeros()},
        Status.WRONG_FAMILY,
        "of a sdxl model",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_key_has_its_status_and_reason(tmp_path: Path, case: str) -> None:
    tensors, status, reason = CASES[case]
    context = TO_Q.replace("attn1_to_q", "attn2_to_k")
    family = {
        f"{context}.lora_down.weight": zeros(4, 768),  # tells SD1.5, and does not fit SMALL
        f"{context.replace('to_k', 'to_v')}.lora_down.weight": zeros(4, 768),
    }
    ledger = load(tmp_path, {**tensors, **family}).ledger
    assert set(tensors) == set(ledger.keys(status)) - set(family)
    for key in tensors:
        assert re.search(reason, ledger.entries[key][1])


def test_a_component_that_is_not_exported_is_no_mistake(tmp_path: Path) -> None:
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    adapter = load(tmp_path, {**lora(TO_Q), **lora(text)}, exported=("unet",))
    record = adapter.ledger.to_json()
    assert (record["used"], record["total"]) == (3, 6)
    assert list(record["not_exported"]) == ["the text_encoder is not part of this export"]
    assert record["unused"] == record["wrong_shape"] == record["wrong_family"] == {}


def test_keys_that_do_not_fit_are_refused_with_the_first_few_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    odd = {f"lora_unet_odd_{i}.lora_down.weight": zeros(4, 8) for i in range(5)}
    safetensors.numpy.save_file({**lora(TO_Q), **odd}, path)
    model = AdaptedModel.of("sd15", TABLES, ("unet",))
    with pytest.raises(InputError, match=r"5 of 8 keys.*odd_0.*odd_2.*\.\.\.: .*--allow-unused"):
        load_adapters([AdapterChoice(path)], model, allow_unused=False)
    (adapter,) = load_adapters([AdapterChoice(path)], model, allow_unused=True)
    assert len(adapter.ledger.keys(Status.USED)) == 3


@pytest.mark.parametrize(
    ("key", "shape", "reason"),
    [
        ("model.diffusion_model.out.2.weight", (4, 8), "a checkpoint, .*pass it with -u"),
        ("weights", (3,), "no key in it is one"),
        ("lora_unet_double_blocks_0_x.lora_down.weight", (4, 8), "for flux"),
        ("lora_te2_text_model_x.lora_down.weight", (4, 8), "for sdxl"),
        ("lora_unet_x_attn2_to_k.hada_w1_b", (4, 1024), "for sd2"),
        ("base_model.model.x.attn2.to_k.oft_R.weight", (32, 496), "for sd2"),
        ("base_model.model.x.attn2.to_v.boft_R", (1, 64, 32, 32), "for sdxl"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, key: str, shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path, {key: zeros(*shape)})
    assert "\n" not in str(caught.value)


def test_no_key_is_lost_even_when_two_hold_the_same_part(tmp_path: Path) -> None:
    twice = {f"{TO_Q}.lora_A.weight": zeros(4, 32)}
    ledger = load(tmp_path, {**lora(TO_Q), **twice}).ledger
    assert len(ledger.entries) == 4
    assert len(ledger.keys(Status.USED)) == 3


@pytest.mark.parametrize(
    "odd",
    [
        {"alpha": (0,)},
        {"alpha": (2,)},
        {"lora_down.weight": (0, 32), "lora_up.weight": (32, 0)},
        {"lora_mid.weight": (4, 4)},
    ],
    ids=str,
)
def test_odd_shapes_are_wrong_shapes_and_no_traceback(
    tmp_path: Path, odd: dict[str, tuple[int, ...]]
) -> None:
    ledger = load(tmp_path, lora(TO_Q, **odd)).ledger
    assert ledger.keys(Status.WRONG_SHAPE) and not ledger.keys(Status.USED)


def test_a_second_kind_on_the_same_tensor_is_left_out_and_the_first_stays_whole(
    tmp_path: Path,
) -> None:
    ledger = load(tmp_path, {**lora(TO_Q), f"{TO_Q}.diff": zeros(32, 32)}).ledger
    assert sorted(ledger.keys(Status.USED)) == sorted(lora(TO_Q))
    assert ledger.entries[f"{TO_Q}.diff"] == (Status.UNUSED, "other keys change the same tensor")
