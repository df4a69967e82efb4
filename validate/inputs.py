"""Inputs that look real: what each port of each component is fed, in which cases.

A component sees values of the kind it was trained on: token ids of prompts, text embeddings of
those prompts, latents of pictures with the noise that belongs to the timestep. Random bits would
leave the range where precision matters, and zeros would hide half of the errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from converter.adapters.lcm import MODEL_SAMPLING
from converter.architecture import CONTROLNET, TIME_ID_WIDTH
from converter.components import ADDED, TIME
from converter.errors import InputError
from converter.families.controlnet import kind_of
from converter.interface import Interface
from converter.sizes import LATENT_SCALE
from converter.weights import Array
from runtime.conditioning import added_embedding, guidance_embedding, sinusoids
from runtime.hints import edges_of
from runtime.schedulers import alpha_bar
from runtime.tokenizer import LENGTH
from validate.base import Case
from validate.drawing import draw
from validate.prompts import token_rows
from validate.scenes import Scene, is_residual
from validate.seeds import generator

RESIDUAL_AMPLITUDE = 1.0
"""Standard deviation of ControlNet residuals: that of the activations they are added to.

There two exchanged ports change the output most. Less drowns in the activations, and far more is
scaled away by the group norms.
"""


@dataclass(frozen=True)
class Origins:
    """Where inputs come from that a network computes. None: the bundle lacks that network.

    `embed` maps token rows to text embeddings and `pool` to one pooled, projected embedding per
    row (reference text encoders), `encode` pictures [B, 3, H, W] to the means of their latents,
    not scaled (reference VAE encoder).
    """

    scaling_factor: float
    vocabulary: int | None
    embed: Callable[[Array], Array] | None
    encode: Callable[[Array], Array] | None
    pool: Callable[[Array], Array] | None = None


Shape = tuple[int, ...]


def make_case(
    component: str,
    scene: Scene,
    interface: Interface,
    shapes: Mapping[str, Shape],
    origins: Origins,
) -> Case:
    """Fill every port of the interface; raises InputError for a port of unknown meaning."""
    inputs = {}
    for port in interface.inputs:
        known = _PORTS[kind_of(component)]
        maker = _residual if is_residual(port.name) else known.get(port.name)
        if maker is None:
            raise InputError(
                f"{component}: nothing is known about an input named {port.name!r}: known are "
                f"{', '.join(known)}; add it to validate/inputs.py"
            )
        shape = shapes[port.name]
        array = maker(_Wanted(component, scene, port.name, shape), origins)
        if array.shape != shape:
            raise InputError(
                f"{component}: input {port.name!r} takes {list(shape)}, and the bundle's other "
                f"components give {list(array.shape)} for it: they do not belong together"
            )
        inputs[port.name] = array.astype(port.dtype)
    return Case(scene.name, scene.about, inputs)


@dataclass(frozen=True)
class _Wanted:
    """One port of one case."""

    component: str
    scene: Scene
    port: str
    shape: Shape

    def noise(self) -> Array:
        """Unit-variance noise that only this port of this case gets."""
        names = (self.component, self.scene.name, self.port)
        return generator(*names).standard_normal(self.shape, np.float32)


def _tokens(wanted: _Wanted, origins: Origins) -> Array:
    assert origins.vocabulary is not None  # it is the text encoder that is asked
    return token_rows(wanted.scene.prompt, wanted.shape, origins.vocabulary)


def _timestep(wanted: _Wanted, origins: Origins) -> Array:
    del origins
    return np.full(wanted.shape, wanted.scene.timestep)


def _embedding(wanted: _Wanted, origins: Origins) -> Array:
    """Embed the scene's prompts; without a text encoder, unit-variance noise has to do."""
    if origins.vocabulary is None or origins.embed is None:
        return wanted.noise()
    rows = (wanted.shape[0], wanted.shape[-2])
    embedded = origins.embed(token_rows(wanted.scene.prompt, rows, origins.vocabulary))
    fits = embedded.size == np.prod(wanted.shape)  # else the caller says what is wrong
    return embedded.reshape(wanted.shape) if fits else embedded


def _pooled_embedding(wanted: _Wanted, origins: Origins) -> Array:
    """Pool the scene's prompts; without that text encoder, unit-variance noise has to do."""
    if origins.vocabulary is None or origins.pool is None:
        return wanted.noise()
    rows = (wanted.shape[0], LENGTH)
    return origins.pool(token_rows(wanted.scene.prompt, rows, origins.vocabulary))


def _time_ids(wanted: _Wanted, origins: Origins) -> Array:
    """Tell SDXL the size it was trained on, uncropped; the refiner also an aesthetic score."""
    del origins
    batch, count = wanted.shape
    return np.tile(np.array(_TIME_IDS[count], np.float32), (batch, 1))


_TIME_IDS = {6: (1024, 1024, 0, 0, 1024, 1024), 5: (1024, 1024, 0, 0, 6)}
"""By their number: original height and width, top and left crop, then target size or score."""


def _guidance_embedding(wanted: _Wanted, origins: Origins) -> Array:
    del origins
    batch, width = wanted.shape
    return np.repeat(guidance_embedding(MODEL_SAMPLING["guidance"], width), batch, axis=0)


def _time_embedding(wanted: _Wanted, origins: Origins) -> Array:
    del origins
    batch, *_, width = wanted.shape
    rows = sinusoids(np.full(batch, wanted.scene.timestep), width)
    return rows.reshape(wanted.shape)


def _added_embedding(wanted: _Wanted, origins: Origins) -> Array:
    """Join a pooled embedding and the sizes, as `runtime.conditioning` does."""
    batch, *_, width = wanted.shape
    sizes = _time_ids(replace(wanted, shape=(batch, 6)), origins)
    pooled = replace(wanted, shape=(batch, width - sizes.shape[1] * TIME_ID_WIDTH))
    return added_embedding(_pooled_embedding(pooled, origins), sizes).reshape(wanted.shape)


def _residual(wanted: _Wanted, origins: Origins) -> Array:
    del origins
    if not wanted.scene.residuals:
        return np.zeros(wanted.shape, np.float32)
    return wanted.noise() * RESIDUAL_AMPLITUDE


def _pictures(wanted: _Wanted, origins: Origins) -> Array:
    del origins
    batch, _, height, width = wanted.shape
    return np.stack([draw(wanted.scene.picture + row, height, width) for row in range(batch)])


def _edges(wanted: _Wanted, origins: Origins) -> Array:
    return edges_of(_pictures(wanted, origins))


def _latent(wanted: _Wanted, origins: Origins) -> Array:
    """Encode drawn pictures; without an encoder, unit variance divided by the scaling factor."""
    if origins.encode is None:
        return np.asarray(wanted.noise() / origins.scaling_factor)
    batch, _, height, width = wanted.shape
    sides = height * LATENT_SCALE, width * LATENT_SCALE
    first = wanted.scene.picture
    return origins.encode(np.stack([draw(first + row, *sides) for row in range(batch)]))


def _noisy_latent(wanted: _Wanted, origins: Origins) -> Array:
    """Return x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, with x_0 the scaled latent."""
    kept = alpha_bar(int(wanted.scene.timestep))
    clean = _latent(wanted, origins) * origins.scaling_factor
    noise = generator("noise", wanted.scene.name).standard_normal(wanted.shape, np.float32)
    return np.asarray(np.sqrt(kept) * clean + np.sqrt(1 - kept) * noise)


_DENOISER: dict[str, Callable[[_Wanted, Origins], Array]] = {
    "sample": _noisy_latent,
    "timestep": _timestep,
    "encoder_hidden_states": _embedding,
    "text_embeds": _pooled_embedding,
    "time_ids": _time_ids,
    TIME: _time_embedding,
    ADDED: _added_embedding,
}
Maker = Callable[[_Wanted, Origins], Array]
_TEXT_ENCODER: dict[str, Maker] = {"input_ids": _tokens, "tokens": _tokens}
_PORTS: dict[str, dict[str, Maker]] = {
    "text_encoder": _TEXT_ENCODER,
    "text_encoder_2": _TEXT_ENCODER,
    CONTROLNET: {**_DENOISER, "controlnet_cond": _edges, "image": _edges},
    "unet": {**_DENOISER, "timestep_cond": _guidance_embedding},
    "vae_encoder": {"sample": _pictures, "image": _pictures},
    "vae_decoder": {"latent_sample": _latent, "latent": _latent},
}
"""What every port means, by component and by the names of all profiles."""
