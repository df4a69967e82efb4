"""The reference takes its weights from the bundle's file, all of them, without copying."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.bundle import Bundle
from converter.errors import InputError
from converter.modules import fill_module
from converter.weights import Array, TensorSpec
from targets.torch_reference import TorchReference, open_reference


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.norm = torch.nn.LayerNorm(2)

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm(self.linear(x)) + shift
        return y, y.sum()


@dataclass(frozen=True)
class Weights:
    """A `WeightSource` over arrays."""

    arrays: Mapping[str, Array]
    key: str = "key"
    file: Path | None = None
    tensor_keys: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> Sequence[str]:
        return [*self.arrays]

    def spec(self, name: str) -> TensorSpec:
        return TensorSpec(self.arrays[name].shape, self.arrays[name].dtype.name)

    def read(self, name: str) -> Array:
        return self.arrays[name]

    def forget(self, name: str) -> None:
        del name


def small() -> Small:
    with torch.device("meta"):
        return Small()


def arrays() -> dict[str, Array]:
    """As a bundle has them: the matrix transposed, a norm's scale shaped to be multiplied by."""
    rng = np.random.default_rng(5)
    found: dict[str, Array] = {
        "linear.weight.T": rng.standard_normal((3, 2), np.float32),
        "linear.bias": rng.standard_normal(2, np.float32),
        "norm.weight": rng.standard_normal((2, 1, 1), np.float32),
        "norm.bias": rng.standard_normal(2).astype(np.float16),
    }
    for array in found.values():
        array.flags.writeable = False
    return found


def test_filled_module_computes_with_the_given_weights() -> None:
    module, weights = small(), arrays()
    fill_module(module, Weights(weights))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    runner = TorchReference(module, ["x", "shift"], ["y", None])
    with runner:
        outputs = runner.infer({"shift": np.array([1, 2], np.float32), "x": x})
    y = x @ weights["linear.weight.T"] + weights["linear.bias"]
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
    y = y * weights["norm.weight"].ravel() + weights["norm.bias"] + [1, 2]
    assert [*outputs] == ["y"]
    np.testing.assert_allclose(outputs["y"], y, atol=1e-5)


def test_nothing_is_copied_and_nothing_wants_a_gradient() -> None:
    module, weights = small(), arrays()
    fill_module(module, Weights(weights))
    assert module.linear.weight.data_ptr() == weights["linear.weight.T"].ctypes.data
    assert module.norm.weight.data_ptr() == weights["norm.weight"].ctypes.data
    assert module.norm.bias.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.bias": None}, "linear.bias is missing"),
        ({"extra": np.zeros(1, np.float32)}, "extra has no place in the module"),
        ({"linear.bias": np.zeros(3, np.float32)}, r"linear.bias is \[3\] where \[2\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, Array | None], message: str) -> None:
    given = {n: a for n, a in {**arrays(), **change}.items() if a is not None}
    with pytest.raises(InputError, match=message):
        fill_module(small(), Weights(given))


def test_all_offenders_are_in_one_message() -> None:
    with pytest.raises(InputError, match="5 weights do not fit") as caught:
        fill_module(small(), Weights({"other": np.zeros(1, np.float32)}))
    for name in ("linear.weight", "linear.bias", "norm.weight", "norm.bias", "other"):
        assert name in str(caught.value)


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
@pytest.mark.parametrize("profile", ["small_bundle", "diffusers_bundle"])
def test_every_component_of_a_bundle_opens_with_its_own_ports(
    component: str, profile: str, request: pytest.FixtureRequest
) -> None:
    from converter.sizes import Size

    bundle: Bundle = request.getfixturevalue(profile)
    ports = bundle.components[component].interface
    inputs = {port.name: np.ones(port.at(1, Size(64, 128)), port.dtype) for port in ports.inputs}
    with open_reference(bundle, component) as runner:
        outputs = runner.infer(inputs)
    assert {name: array.shape for name, array in outputs.items()} == ports.output_shapes(
        1, Size(64, 128)
    )
    assert all(array.dtype == np.float32 for array in outputs.values())
