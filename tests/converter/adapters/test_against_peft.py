"""What PEFT trains and saves: its own merge is the reference, its configuration lies beside it."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.boft import layer as boft_layer

from converter.adapters.adapter import Adapter
from converter.adapters.peft_metadata import PeftSettings
from converter.containers.opening import open_checkpoint
from converter.errors import InputError
from tests.converter.adapters.one_layer import bound, merged, relative

LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "linear": lambda: torch.nn.Linear(16, 24),
    "linear without bias": lambda: torch.nn.Linear(16, 16, bias=False),
    "convolution": lambda: torch.nn.Conv2d(8, 8, 3),
    "pointwise": lambda: torch.nn.Conv2d(16, 24, 1),
    "embedding": lambda: torch.nn.Embedding(20, 16),
}
PREFIX = "base_model.model.layer"


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(target_modules=["layer"], r=4, lora_alpha=10, **options)


def oft(**options: Any) -> peft.OFTConfig:
    size = {} if "r" in options else {"oft_block_size": 4}
    return peft.OFTConfig(target_modules=["layer"], **{"oft_block_size": 0, **size, **options})


def boft(stages: int = 1, size: int = 4) -> peft.BOFTConfig:
    return peft.BOFTConfig(
        target_modules=["layer"], boft_block_size=size, boft_n_butterfly_factor=stages
    )


def ia3(*feedforward: str) -> peft.IA3Config:
    return peft.IA3Config(target_modules=["layer"], feedforward_modules=list(feedforward))


CONFIGS: dict[str, tuple[Any, str]] = {
    "LoRA": (lora(), "linear, convolution, pointwise, embedding"),
    "rsLoRA": (lora(use_rslora=True), "linear, convolution, embedding"),
    "DoRA": (lora(use_dora=True), "linear, convolution, embedding"),
    "LoRA with a bias": (lora(lora_bias=True), "linear, convolution"),
    "rsLoRA with a bias": (lora(lora_bias=True, use_rslora=True), "linear"),
    "LoRA, turned round": (lora(fan_in_fan_out=True), "linear"),
    "alpha by pattern": (lora(alpha_pattern={"layer": 3}), "linear, convolution"),
    "rank by pattern": (lora(rank_pattern={"l.*r": 2}, lora_bias=True), "linear, convolution"),
    "LoHa": (peft.LoHaConfig(target_modules=["layer"], r=4, alpha=3), "linear, convolution"),
    "LoKr": (peft.LoKrConfig(target_modules=["layer"], r=2, alpha=3), "linear, convolution"),
    "LoKr, whole": (
        peft.LoKrConfig(target_modules=["layer"], r=16, rank_pattern={"layer": 12}, alpha=3),
        "linear, convolution",
    ),
    "IA3": (ia3(), "linear, linear without bias, convolution, pointwise"),
    "IA3, feed-forward": (ia3("layer"), "linear, linear without bias, convolution, pointwise"),
    "OFT": (oft(), "linear, pointwise, embedding"),
    "OFT, exact": (oft(use_cayley_neumann=False), "linear, pointwise, embedding"),
    "OFT, blocks by number": (oft(r=2, use_cayley_neumann=False), "linear"),
    "OFT, one block": (oft(r=1, use_cayley_neumann=False), "linear"),
    "OFT, shared": (oft(block_share=True), "linear, pointwise, embedding"),
    "OFT, constrained": (oft(coft=True, eps=0.25), "linear, pointwise, embedding"),
    **{
        f"OFT, {terms} terms": (oft(num_cayley_neumann_terms=terms), "linear")
        for terms in (1, 2, 3, 4, 7)
    },
    "BOFT": (boft(), "linear, convolution, pointwise"),
    "BOFT, odd blocks": (boft(size=1), "linear"),
    "BOFT, two stages": (boft(2), "linear, convolution"),
    "BOFT, three stages": (boft(3, 2), "linear, convolution"),
}


class Model(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(x)
        return output


class BlockDiagonal:
    """What PEFT's CUDA extension computes: it alone lets BOFT have several stages."""

    @staticmethod
    def forward(blocks: torch.Tensor) -> list[torch.Tensor]:
        return [torch.stack([torch.block_diag(*stage) for stage in blocks])]  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def _extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boft_layer, "_FBD_CUDA", BlockDiagonal)


def trained(config: Any, layer: torch.nn.Module) -> Any:
    """A PEFT model of this layer with random values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice on options
        model = peft.get_peft_model(Model(layer), config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.5 * torch.rand_like(parameter) + 0.1)
    return model


def saved(model: Any, weight: torch.Tensor, folder: Path, **changes: Any) -> Adapter:
    """Save as PEFT does, and bind the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes every bias for a damaged factor
        model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    state = open_checkpoint(folder)
    tensors = {
        key.removeprefix(f"{PREFIX}."): torch.from_numpy(state.read(key).copy())
        for key in state.tensors
    }
    return bound(tensors, weight, prefix=PREFIX, config={**config, **changes})


def merge(model: Any) -> torch.nn.Module:
    layer: torch.nn.Module = model.merge_and_unload().layer
    return layer


@pytest.mark.parametrize(
    ("name", "shape"), [(n, s) for n, (_, shapes) in CONFIGS.items() for s in shapes.split(", ")]
)
def test_the_merged_layer_is_pefts(name: str, shape: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = LAYERS[shape]().double()
    before = {n: p.detach().clone() for n, p in original.named_parameters()}
    model = trained(CONFIGS[name][0], original)
    adapter = saved(model, before["weight"], tmp_path)
    record = adapter.ledger.to_json()
    assert record["used"] == record["total"], record
    for tensor, wanted in merge(model).named_parameters():
        found = merged(adapter, weight=before[tensor], tensor=tensor)
        assert relative(found, wanted) < 1e-12, tensor
        if tensor == "weight" and name != "OFT, 1 terms":
            assert relative(before[tensor], wanted) > 1e-2


@pytest.mark.parametrize("shape", ["linear", "convolution"])
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_peft_trains_beside_are_taken_whole(
    bias: str, shape: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    original = LAYERS[shape]().double()
    before = {n: p.detach().clone() for n, p in original.named_parameters()}
    model = trained(lora(bias=bias), original)
    adapter = saved(model, before["weight"], tmp_path)
    assert adapter.ledger.to_json()["used"] == 3
    for tensor, wanted in merge(model).named_parameters():
        found = merged(adapter, weight=before[tensor], tensor=tensor)
        assert relative(before[tensor], wanted) > 1e-2
        assert relative(found, wanted) < 1e-12, tensor


def test_modules_that_peft_saves_whole_take_the_place_of_the_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"layer": torch.nn.Conv2d(8, 8, 3), "x": torch.nn.Linear(2, 2)})
    before = {n: p.detach().clone() for n, p in model.double()["layer"].named_parameters()}
    config = peft.LoraConfig(target_modules=["x"], modules_to_save=["layer"])
    peft_model = peft.get_peft_model(model, config).double()
    with torch.no_grad():
        for parameter in peft_model.parameters():
            parameter.add_(1)
    peft_model.save_pretrained(tmp_path)
    state = open_checkpoint(tmp_path)
    tensors = {
        key.removeprefix(f"{PREFIX}."): torch.from_numpy(state.read(key).copy())
        for key in state.tensors
        if key.startswith(f"{PREFIX}.")
    }
    adapter = bound(tensors, before["weight"], prefix=PREFIX)
    half = bound(tensors, before["weight"], scale=0.5, prefix=PREFIX)
    assert adapter.ledger.to_json()["used"] == len(tensors) == 2
    for tensor, wanted in peft_model.merge_and_unload()["layer"].named_parameters():
        assert relative(merged(adapter, weight=before[tensor], tensor=tensor), wanted) < 1e-15
        middle = (before[tensor] + wanted) / 2
        assert relative(merged(half, weight=before[tensor], tensor=tensor), middle) < 1e-15


def test_a_configuration_in_the_metadata_is_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained(lora(use_rslora=True), torch.nn.Linear(16, 24))
    weight = torch.rand(24, 16, dtype=torch.float64)
    beside = merged(saved(model, weight, tmp_path), weight=weight)
    config = (tmp_path / "adapter_config.json").read_text()
    tensors = peft.get_peft_model_state_dict(model)
    parts = {key.removeprefix(f"{PREFIX}."): value.detach() for key, value in tensors.items()}
    inside = bound(parts, weight, metadata={"lora_adapter_metadata": config}, prefix=PREFIX)
    assert torch.equal(merged(inside, weight=weight), beside)
    without = bound(parts, weight, prefix=PREFIX)
    assert relative(merged(without, weight=weight), beside) > 0.1


def test_pefts_oft_of_a_wide_convolution_is_no_change_of_its_weight(tmp_path: Path) -> None:
    """So it is refused: not even a fresh one leaves the layer's output as it was."""
    layer = torch.nn.Conv2d(8, 8, 3).double()
    picture = torch.rand(1, 8, 6, 6, dtype=torch.float64)
    before = layer(picture)
    model = peft.get_peft_model(Model(layer), oft()).double()
    with torch.no_grad():
        assert relative(model(picture), before) > 0.1
    ledger = saved(model, layer.weight.detach(), tmp_path).ledger.to_json()
    assert list(ledger["unused"]) == [
        "PEFT's OFT of a convolution wider than 1x1 is no change of a weight"
    ]


@pytest.mark.parametrize(
    ("parts", "weight", "status", "reason"),
    [
        ({"ia3_l": (1, 8, 1, 1)}, (8, 8, 3, 3), "unused", "has to tell feedforward"),
        ({"oft_R.weight": (2, 28)}, (24, 16), "unused", "has to tell use_cayley_neumann"),
        ({"oft_R.weight": (3, 28)}, (24, 16), "wrong_shape", "a weight of [24, 16]"),
        ({"oft_R.weight": (2, 27)}, (24, 16), "wrong_shape", "a weight of [24, 16]"),
        ({"oft_embedding_R.weight": (2, 27)}, (24, 16), "wrong_shape", "a weight of [24, 16]"),
        ({"boft_R": (1, 4, 4, 4)}, (24, 16), "unused", "it needs boft_R + boft_s"),
        ({"boft_R": (1, 6, 4, 4), "boft_s": (24, 1)}, (24, 16), "wrong_shape", "[24, 16]"),
        ({"boft_R": (4, 4, 4, 4), "boft_s": (24, 1)}, (24, 16), "wrong_shape", "[24, 16]"),
        ({"ia3_l": (1, 7, 1, 1)}, (8, 8, 3, 3), "wrong_shape", "[8, 8, 3, 3]"),
        ({"lora_B.bias": (7,)}, (24, 16), "wrong_shape", "a bias of [24]"),
        (
            {"lora_embedding_A": (4, 24), "lora_embedding_B": (15, 4)},
            (24, 16),
            "wrong_shape",
            "a weight of [24, 16]",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(
    parts: dict[str, tuple[int, ...]], weight: tuple[int, ...], status: str, reason: str
) -> None:
    tensors = {part: torch.rand(shape) for part, shape in parts.items()}
    adapter = bound(tensors, torch.rand(weight), prefix=PREFIX)
    ((found, keys),) = adapter.ledger.to_json()[status].items()
    assert reason in found and len(keys) == len(parts)


def save(folder: Path, config: dict[str, Any] | None, name: str = "adapter_model.bin") -> Path:
    torch.save({f"{PREFIX}.lora_A.weight": torch.rand(2, 4)}, folder / name)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder / name


OLD_OFT = {"peft_type": "OFT", "oft_block_size": 32, "use_cayley_neumann": True}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "VERA"}, "PEFT's VERA, .*merge_and_unload"),
        ({"peft_type": "PeftType.ADALORA"}, "PEFT's ADALORA, "),
        ({"peft_type": "LORA", "kasa_config": {"beta": 1}}, "PEFT's kasa_config, not merged"),
        ({"init_lora_weights": "pissa_niter_4"}, "began by changing the checkpoint"),
        ({"peft_type": "OFT", "r": 8, "peft_version": "0.18.0"}, "an OFT of PEFT before 0.18"),
        ({**OLD_OFT, "peft_version": "0.17.1"}, "an OFT of PEFT before 0.18"),
        (OLD_OFT, "an OFT of PEFT before 0.18"),
        (None, "adapter_config.json: not found; .*put both into one folder"),
    ],
    ids=str,
)
def test_what_is_not_merged_is_refused_by_name(
    config: dict[str, Any] | None, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        PeftSettings(save(tmp_path, config), {})
    assert "\n" not in str(caught.value)


def test_other_files_beside_a_configuration_are_not_pefts(tmp_path: Path) -> None:
    path = save(tmp_path, {"lora_alpha": 8}, "kohya.bin")
    assert PeftSettings(path, {}).alpha("unet", "x") is None
    assert PeftSettings(save(tmp_path, {"lora_alpha": 8}), {}).alpha("unet", "x") == 8.0


def test_pissa_takes_something_out_of_the_checkpoint() -> None:
    """The reason for refusing it: beside the untouched weight its factors mean nothing."""
    layer = torch.nn.Linear(16, 24)
    before = layer.weight.detach().clone()
    model = peft.get_peft_model(Model(layer), lora(init_lora_weights="pissa"))
    assert relative(model.base_model.model.layer.base_layer.weight, before) > 0.1


def settings(entries: dict[str, Any]) -> PeftSettings:
    return PeftSettings(Path("x"), {"lora_adapter_metadata": json.dumps(entries)})


def test_settings_are_those_of_the_component() -> None:
    found = settings({"unet.lora_alpha": 8, "unet.use_rslora": True, "text_encoder.lora_alpha": 2})
    assert found.alpha("unet", "x") == 8.0
    assert found.alpha("text_encoder", "x") == 2.0
    assert found.alpha("text_encoder_2", "x") is None
    assert (found.divisor("unet", 16), found.divisor("text_encoder", 16)) == (4.0, 16.0)


def test_settings_of_one_model_alone_are_for_whatever_it_is() -> None:
    found = settings({"lora_alpha": 8, "r": 4, "rank_pattern": {"a|b": 2}})
    assert found.alpha("text_encoder", "x") == found.alpha("unet", "x") == 8.0
    assert (found.rank("unet", "x"), found.rank("unet", "down.b")) == (4, 2)


@pytest.mark.parametrize(
    "pattern", ["attn1.to_q", "down.0.attn1.to_q", "^down.0.attn1.to_q", ".*q"]
)
def test_a_pattern_names_the_end_of_a_module(pattern: str) -> None:
    found = settings({"unet.lora_alpha": 8, "unet.alpha_pattern": {pattern: 2}})
    assert found.alpha("unet", "down.0.attn1.to_q") == 2.0
    assert found.alpha("unet", "down.0.attn1.to_k") == 8.0


@pytest.mark.parametrize("before", ["", "text_model.", "^text_model."])
def test_a_pattern_names_a_text_encoders_module_as_transformers_does(before: str) -> None:
    found = settings({"lora_alpha": 8, "alpha_pattern": {f"{before}encoder.layers.0.mlp.fc1": 2}})
    assert found.alpha("text_encoder", "encoder.layers.0.mlp.fc1") == 2.0
    assert found.alpha("text_encoder", "encoder.layers.1.mlp.fc1") == 8.0


def test_damaged_metadata_is_refused() -> None:
    with pytest.raises(InputError, match="lora_adapter_metadata is no JSON"):
        PeftSettings(Path("x"), {"lora_adapter_metadata": "{"})
