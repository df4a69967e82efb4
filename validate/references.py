"""The reference networks of a bundle: opened when first asked for, closed together."""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from converter.bundle import Bundle
from converter.components import hidden_state, text_encoders
from converter.interface import Interface
from converter.weights import Array
from runtime.conditioning import POOLED_NAMES
from runtime.staging import OpenReference
from targets.base import Runner
from targets.torch_reference import TorchReference
from validate.inputs import Origins


def open_torch_reference(bundle: Bundle, component: str) -> Runner:
    """Open the fp32 reference; torch is imported here and not before."""
    from targets.torch_reference import open_reference

    return open_reference(bundle, component)


class References:
    """Every reference of one bundle, as a context manager."""

    def __init__(self, bundle: Bundle, opener: OpenReference = open_torch_reference) -> None:
        self._bundle = bundle
        self._opener = opener
        self._stack = ExitStack()
        self._runners: dict[str, Runner] = {}
        self._seen: dict[str, dict[str, Array]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def infer(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the reference of a component."""
        return self._runner(component).infer(inputs)

    def modules(self, component: str) -> TorchReference | None:
        """The reference whose modules can be looked into; None where a stand-in cannot."""
        runner = self._runner(component)
        return runner if isinstance(runner, TorchReference) else None

    def _runner(self, component: str) -> Runner:
        if component not in self._runners:
            runner = self._opener(self._bundle, component)
            self._runners[component] = self._stack.enter_context(runner)
        return self._runners[component]

    def origins(self) -> Origins:
        """Return the sources of inputs that this bundle's own networks can compute."""
        components, architecture = self._bundle.components, self._bundle.architecture
        vae: Mapping[str, Any] | None = architecture["vae"]
        encoders = text_encoders(self._bundle.family)
        vocabularies = [architecture[e]["vocabulary"] for e in encoders if architecture.get(e)]
        return Origins(
            scaling_factor=1.0 if vae is None else vae["scaling_factor"],
            vocabulary=min(vocabularies, default=None),
            embed=self._embed if set(encoders) <= set(components) else None,
            encode=self._encode if "vae_encoder" in components else None,
            pool=self._pool if "text_encoder_2" in components else None,
        )

    def _embed(self, tokens: Array) -> Array:
        """Join what every text encoder gives, as SDXL takes it."""
        encoders = text_encoders(self._bundle.family)
        states = {e: hidden_state(self._ports(e).outputs) for e in encoders}
        return np.concatenate([self._output(e, tokens, n) for e, n in states.items()], axis=-1)

    def _pool(self, tokens: Array) -> Array:
        outputs = self._ports("text_encoder_2").outputs
        name = next(port.name for port in outputs if port.name in POOLED_NAMES)
        return self._output("text_encoder_2", tokens, name)

    def _encode(self, pictures: Array) -> Array:
        """Keep the mean of the moments: the first half of the channels."""
        moments = self._output("vae_encoder", pictures, self._ports("vae_encoder").outputs[0].name)
        return moments[:, : moments.shape[1] // 2]

    def _ports(self, component: str) -> Interface:
        return self._bundle.components[component].interface

    def _output(self, component: str, array: Array, name: str) -> Array:
        """Feed the only input. UNet and VAE decoder ask for the same few: they are remembered."""
        key = f"{component} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        if key not in self._seen:
            port = self._ports(component).inputs[0]
            self._seen[key] = self.infer(component, {port.name: array.astype(port.dtype)})
        return self._seen[key][name]
