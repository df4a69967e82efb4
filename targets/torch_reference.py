"""The fp32 reference: the original torch module on the CPU, with the bundle's own weights.

Weights are views into the bundle's memory-mapped file: opening a UNet costs neither time nor
memory before it runs. Needs the `torch` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converter.architecture import Architecture
from converter.modules import load_module, require_torch
from converter.profiles import get_profile
from targets.base import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from converter.bundle import Bundle
    from converter.weights import Array


def open_reference(bundle: Bundle, component: str) -> TorchReference:
    """Open the reference of a bundle's component; raises InputError without torch."""
    require_torch("the fp32 reference")
    profile = get_profile(bundle.profile)
    architecture = Architecture.from_json(bundle.architecture)
    ports = profile.canonical(component, architecture)
    kept = profile.outputs(component, ports)
    return TorchReference(
        load_module(bundle, component),
        inputs=[port.name for port in bundle.components[component].interface.inputs],
        # The profile may rename and drop outputs; the module returns all of them.
        outputs=[kept.get(port.name) for port in ports.outputs],
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
