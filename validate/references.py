"""The reference networks of a bundle: opened when first asked for, closed together."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from converter.bundle import Bundle
from converter.components import text_encoders
from converter.weights import Array
from targets.base import Runner
from validate.inputs import Origins

OpenReference = Callable[[Bundle, str], Runner]
"""Opens the reference of one component: `targets.torch_reference.open_reference`, or a stand-in."""


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
        if component not in self._runners:
            runner = self._opener(self._bundle, component)
            self._runners[component] = self._stack.enter_context(runner)
        return self._runners[component].infer(inputs)

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
        return np.concatenate([self._output(e, tokens) for e in encoders], axis=-1)

    def _pool(self, tokens: Array) -> Array:
        return self._output("text_encoder_2", tokens, 1)

    def _encode(self, pictures: Array) -> Array:
        """Keep the mean of the moments: the first half of the channels."""
        moments = self._output("vae_encoder", pictures)
        return moments[:, : moments.shape[1] // 2]

    def _output(self, component: str, array: Array, index: int = 0) -> Array:
        """Feed the only input. UNet and VAE decoder ask for the same few: they are remembered."""
        ports = self._bundle.components[component].interface
        key = f"{component} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        if key not in self._seen:
            inputs = {ports.inputs[0].name: array.astype(ports.inputs[0].dtype)}
            self._seen[key] = self.infer(component, inputs)
        return self._seen[key][ports.outputs[index].name]
