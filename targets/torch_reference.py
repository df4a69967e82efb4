"""The fp32 reference: the original torch module on the CPU, with the bundle's own weights.

Weights are views into the bundle's memory-mapped file: opening a UNet costs neither time nor
memory before it runs. Needs the `torch` extra.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.architecture import Architecture
from converter.modules import load_module, require_torch
from converter.profiles import get_profile
from targets.base import Runner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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

        results = self._run(inputs)
        if isinstance(results, torch.Tensor):
            results = (results,)
        named = zip(self._outputs, results, strict=True)
        return {name: result.numpy() for name, result in named if name is not None}

    def layers(
        self, inputs: Mapping[str, Array], wanted: Collection[str] | None = None
    ) -> dict[str, Array]:
        """Run once; what the modules inside give, by their paths, in the order they finish.

        `wanted` None means all. Of several results of a module, the first; of one that runs more
        than once, the last.
        """
        seen: dict[str, Array] = {}
        hooks = [
            module.register_forward_hook(partial(_see, seen, path))
            for path, module in self._inside().items()
            if wanted is None or path in wanted
        ]
        try:
            self._run(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    def kinds(self) -> dict[str, str]:
        """The class of every module inside, by path: ``Conv2d``."""
        return {path: type(module).__name__ for path, module in self._inside().items()}

    def _inside(self) -> dict[str, torch.nn.Module]:
        """The modules below the one that is run, by the names that weights begin with."""
        inner = dict(self._module.named_children())
        outer = (
            inner["module"] if [*inner] == ["module"] else self._module
        )  # reordered by a profile
        return {path: module for path, module in outer.named_modules() if path}

    def _run(self, inputs: Mapping[str, Array]) -> Any:
        import torch

        arguments = [torch.from_numpy(np.array(inputs[name])) for name in self._inputs]
        with torch.inference_mode():
            return self._module(*arguments)


def _see(
    seen: dict[str, Array], path: str, _module: torch.nn.Module, _given: object, result: Any
) -> None:
    """Keep a copy of what a module gave: later ones may write over it."""
    import torch

    if isinstance(result, (tuple, list)) and result:
        result = result[0]
    result = getattr(result, "last_hidden_state", getattr(result, "sample", result))
    if isinstance(result, torch.Tensor) and result.is_floating_point():
        seen.pop(path, None)
        seen[path] = result.numpy().copy()
