"""The fp32 reference: the original torch module on the CPU, with the bundle's own weights.

Weights are views into the bundle's memory-mapped file: opening a UNet costs neither time nor
memory before it runs. Needs the `torch` extra.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from converter.architecture import Architecture
from converter.components import interface
from converter.errors import InputError
from converter.modules import build_module, require_torch
from converter.profiles import get_profile
from passes.weights import TRANSPOSED
from targets.base import Runner

LISTED = 8
"""Offenders named in an error message; the rest are counted."""

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from converter.bundle import Bundle
    from converter.weights import Array, WeightSource


def open_reference(bundle: Bundle, component: str) -> TorchReference:
    """Open the reference of a bundle's component; raises InputError without torch."""
    require_torch("the fp32 reference")
    profile = get_profile(bundle.profile)
    architecture = Architecture.from_json(bundle.architecture)
    module = build_module(component, architecture, residual_ports=profile.residual_ports)
    fill(module, bundle.weights(component))
    ports = interface(component, architecture, residual_ports=profile.residual_ports)
    kept = profile.components[component].outputs if component in profile.components else None
    return TorchReference(
        module,
        inputs=[port.name for port in bundle.components[component].interface.inputs],
        # The profile may rename and drop outputs; the module returns all of them.
        outputs=[port.name if kept is None else kept.get(port.name) for port in ports.outputs],
    )


class TorchReference(Runner):
    """A torch module behind a consumer's port names.

    `inputs` are the names of the module's positional arguments; `outputs` those of its results,
    None for a result that the consumer has no port for.
    """

    def __init__(
        self, module: torch.nn.Module, inputs: Sequence[str], outputs: Sequence[str | None]
    ) -> None:
        self._module = module
        self._inputs = inputs
        self._outputs = outputs

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the module in fp32; integer inputs keep their dtype."""
        import torch

        arguments = [torch.from_numpy(np.array(inputs[name])) for name in self._inputs]
        with torch.inference_mode():
            results = self._module(*arguments)
        if isinstance(results, torch.Tensor):
            results = (results,)
        named = zip(self._outputs, results, strict=True)
        return {name: result.numpy() for name, result in named if name is not None}


def fill(module: torch.nn.Module, weights: WeightSource) -> None:
    """Point every parameter of a meta module into `weights`; copy only what is not fp32.

    Raises InputError, naming the offenders, unless names and shapes fit in both directions. A
    graph may hold a norm's scale as [C, 1, 1] to multiply by it: extents of 1 do not count.
    """
    tensors = dict(_tensor(name, weights.read(name)) for name in weights.names())
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    offenders = [f"{name} is missing" for name in wanted if name not in tensors]
    offenders += [f"{name} has no place in the module" for name in tensors if name not in wanted]
    offenders += [
        f"{name} is {list(tensor.shape)} where {list(wanted[name])} was expected"
        for name, tensor in tensors.items()
        if name in wanted and _without_ones(tensor.shape) != _without_ones(wanted[name])
    ]
    if offenders:
        shown = "; ".join(offenders[:LISTED]) + ("; ..." if len(offenders) > LISTED else "")
        raise InputError(
            f"{len(offenders)} weights do not fit the reference module: {shown}: "
            "export the bundle again"
        )
    module.load_state_dict(
        {name: tensor.reshape(wanted[name]) for name, tensor in tensors.items()}, assign=True
    )
    module.requires_grad_(requires_grad=False)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [extent for extent in shape if extent != 1]


def _tensor(name: str, array: Array) -> tuple[str, torch.Tensor]:
    """One weight under the module's name and in its orientation."""
    import torch

    with warnings.catch_warnings():
        # The file is mapped read-only, and inference writes to no weight.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array.astype(np.float32, copy=False))
    if name.endswith(TRANSPOSED):
        return name.removesuffix(TRANSPOSED), tensor.T
    return name, tensor
