"""Every kind that LyCORIS trains: its own modules write the file and compute the weight.

Where its functions are wrong the right one is called: `get_merged_weight` of LoHa and LoKr
multiplies by alpha / rank twice, `get_weight` once, as its own training does.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lycoris.functional.general import weight_decompose
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule

from tests.converter.adapters.one_layer import Tensors, bound, merge_one, merged, relative

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Trained:
    """A LyCORIS algorithm with its options, and the rounding that its float type allows."""

    module: Any
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-12
    dtype: torch.dtype = torch.float64


KINDS = {
    "LoRA": Trained(LoConModule),
    "LoCon, Tucker": Trained(LoConModule, {"use_tucker": True}),
    "LoHa": Trained(LohaModule),
    "LoHa, Tucker": Trained(LohaModule, {"use_tucker": True}),
    "LoKr": Trained(LokrModule, {"factor": 4}),
    "LoKr, both decomposed": Trained(LokrModule, {"factor": 8, "decompose_both": True}),
    "LoKr, Tucker": Trained(LokrModule, {"factor": 4, "use_tucker": True}),
    "LoKr, whole": Trained(LokrModule, {"full_matrix": True}),
    "GLoRA": Trained(GLoRAModule),
    "IA3": Trained(IA3Module),
    "IA3, on input": Trained(IA3Module, {"train_on_input": True}),
    # These work in float32, and invert a matrix in it.
    "OFT": Trained(DiagOFTModule, {}, 2e-6, torch.float32),
    "OFT, bounded": Trained(DiagOFTModule, {"constraint": 2**-10}, 2e-6, torch.float32),
    "OFT, rescaled": Trained(DiagOFTModule, {"rescaled": True}, 2e-6, torch.float32),
    "BOFT": Trained(ButterflyOFTModule, {}, 2e-6, torch.float32),
    "BOFT, rescaled": Trained(ButterflyOFTModule, {"rescaled": True}, 2e-6, torch.float32),
}
DECOMPOSED = {
    f"{name} + DoRA{axis}": Trained(kind, {**options, "weight_decompose": True, "wd_on_out": out})
    for name, kind, options in (
        ("LoRA", LoConModule, {}),
        ("LoHa", LohaModule, {}),
        ("LoKr", LokrModule, {"factor": 4}),
        ("LoCon, Tucker", LoConModule, {"use_tucker": True}),
    )
    for axis, out in ((", outputs", True), (", inputs", False))
}


def layer(outputs: int, inputs: int, kernel: int) -> torch.nn.Linear | torch.nn.Conv2d:
    if kernel == 0:
        return torch.nn.Linear(inputs, outputs)
    return torch.nn.Conv2d(inputs, outputs, kernel)


def trained(
    kind: Trained, original: torch.nn.Module, rank: int, alpha: float, stored: torch.dtype
) -> tuple[Any, Tensors]:
    """Give a LyCORIS module random values that `stored` holds exactly, and its file."""
    module = kind.module("layer", original, 1.0, rank, alpha, **kind.options).to(kind.dtype)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = 0.3 * torch.randn(parameter.shape)
            if name.startswith(("dora_scale", "rescale")):
                values = 1 + values.abs()
            parameter.copy_(values.to(stored))
    state = module.custom_state_dict() or module.state_dict()
    return module, {name: value.detach().to(stored) for name, value in state.items()}


def reference(module: Any, weight: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if not hasattr(module, "get_weight"):
            plain: torch.Tensor = module.get_merged_weight(1.0)[0]
            return plain
        scale = module.scale if isinstance(module, LoConModule) else 1.0
        adapted: torch.Tensor = weight + scale * module.get_weight(weight.shape)
        if not getattr(module, "wd", False):
            return adapted
        decomposed: torch.Tensor = weight_decompose(adapted, module.dora_scale, 1, module.wd_on_out)
        return decomposed


@settings(max_examples=10)
@pytest.mark.parametrize("name", [*KINDS, *DECOMPOSED])
@given(
    st.sampled_from([24, 48]),
    st.sampled_from([16, 24, 40]),
    st.sampled_from([0, 0, 1, 3]),
    st.sampled_from([1, 2, 4, 6]),
    st.sampled_from([0.5, 1.0, 3.0, 8.0]),
    st.sampled_from(sorted(DTYPES)),
    st.integers(0, 2**31),
)
def test_the_merged_weight_is_what_lycoris_trains(
    name: str,
    outputs: int,
    inputs: int,
    kernel: int,
    rank: int,
    alpha: float,
    stored: str,
    seed: int,
) -> None:
    kind = {**KINDS, **DECOMPOSED}[name]
    torch.manual_seed(seed)
    if kind.module in (ButterflyOFTModule, DiagOFTModule):
        rank = 6  # the size of a block: even, and the outputs are it times a power of two
    original = layer(outputs, inputs, kernel).to(kind.dtype)
    module, state = trained(kind, original, rank, alpha, DTYPES[stored])
    weight = original.weight.detach()
    wanted = reference(module, weight).reshape(weight.shape)
    assert relative(weight, wanted) > 1e-4  # something was asked for
    assert relative(merge_one(state, weight), wanted) < kind.tolerance


def test_whole_differences_change_weight_and_bias() -> None:
    torch.manual_seed(0)
    original = torch.nn.Conv2d(4, 8, 3)
    module = FullModule("layer", original, 1.0)
    module.apply_to()
    with torch.no_grad():
        module.weight.add_(torch.randn(8, 4, 3, 3))
        module.bias.add_(torch.randn(8))
    state = {name: value.detach() for name, value in module.custom_state_dict().items()}
    weight, bias = module.org_weight, module.org_bias[0]
    adapter = bound(state, weight)
    assert adapter.ledger.to_json()["used"] == 2
    assert relative(merged(adapter, weight=weight), module.weight) < 1e-6
    assert relative(merged(adapter, weight=bias, tensor="bias"), module.bias) < 1e-6
