"""What UNet and ControlNet are told in every step: prompts, SDXL's sizes, a full LCM's guidance.

Values are by the names that `converter.components.interface` gives their ports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from converter.architecture import TIME_ID_WIDTH
from converter.components import ADDED, POOLED, TEXT_ENCODERS, TIME, hidden_state
from converter.interface import Interface
from converter.sizes import Size
from converter.weights import Array
from runtime.network import Network
from runtime.tokenizer import END_TOKEN, Words, tokenize

POOLED_NAMES = {POOLED, "pooled_output"}
"""What profiles call the pooled text that SDXL takes."""

CONTEXT, SIZES, GUIDANCE = "encoder_hidden_states", "time_ids", "timestep_cond"


@dataclass(frozen=True)
class PromptRules:
    """How a model's text encoders are fed.

    `padding` is, by component, the token behind the end of a prompt (not listed: the end again);
    `words` are the bundle's own. With `zero_negative` no negative prompt means zeros in the place
    of its embeddings, as SDXL was trained; else it means the empty prompt.
    """

    padding: Mapping[str, int] = field(default_factory=dict)
    words: Words = field(default_factory=dict)
    zero_negative: bool = False


def is_told_guidance(unet: Interface) -> bool:
    """Whether this is the UNet of a full LCM, which takes the guidance scale as an input."""
    return any(port.name == GUIDANCE for port in unet.inputs)


def embed_prompts(
    networks: Mapping[str, Network], rules: PromptRules, prompts: Sequence[str | None]
) -> dict[str, Array]:
    """Embed prompts (None: no prompt) with every text encoder of `networks`, joined.

    Hidden states float32 [B, 77, width], and for SDXL pooled ones float32 [B, width].
    """
    given = [index for index, p in enumerate(prompts) if p is not None or not rules.zero_negative]
    texts = [prompts[index] or "" for index in given]
    hidden: list[Array] = []
    pooled: dict[str, Array] = {}
    for name in (name for name in TEXT_ENCODERS if name in networks):
        encoder = networks[name]
        tokens = tokenize(texts, rules.padding.get(name, END_TOKEN), rules.words)
        ports = encoder.interface.outputs
        outputs = dict(zip((port.name for port in ports), encoder(tokens), strict=True))
        hidden.append(outputs[hidden_state(ports)])
        # Of two pooled outputs the later encoder's is meant.
        for port in POOLED_NAMES & outputs.keys():
            pooled = {POOLED: outputs[port]}
    embedded = {CONTEXT: np.concatenate(hidden, axis=-1), **pooled}
    return {name: _at(given, rows, len(prompts)) for name, rows in embedded.items()}


def _at(places: Sequence[int], rows: Array, count: int) -> Array:
    """Put rows at their places among `count`, zeros elsewhere."""
    result = np.zeros((count, *rows.shape[1:]), np.float32)
    result[list(places)] = rows
    return result


def size_ids(size: Size) -> Array:
    """Tell SDXL that a picture was taken whole at this size: float32 [1, 6].

    Original height and width, top and left of the crop, target height and width (arXiv
    2307.01952, section 2.2).
    """
    sides = (size.height, size.width)
    return np.array([[*sides, 0, 0, *sides]], np.float32)


def sinusoids(values: Array, width: int) -> Array:
    """Embed numbers [...] as diffusion models do: float32 [..., width].

    Cosines, then sines, of frequencies that fall geometrically from 1 towards 1/10000 (arXiv
    2006.11239, as diffusers computes it for Stable Diffusion, in float32).
    """
    half = width // 2
    exponents = np.float32(-np.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half)
    angles = values.astype(np.float32)[..., None] * np.exp(exponents)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1, dtype=np.float32)


def added_embedding(pooled: Array, sizes: Array) -> Array:
    """Join pooled text [B, width] and SDXL's sizes [B, 6], each embedded 256 wide: [B, sum]."""
    embedded = sinusoids(sizes, TIME_ID_WIDTH).reshape(len(sizes), -1)
    return np.concatenate([pooled, embedded], axis=-1, dtype=np.float32)


def embedded(given: Mapping[str, Array], unet: Interface) -> dict[str, Array]:
    """What a UNet is given, with the embeddings and the axes that its ports want.

    `given` has one row a prompt, but for the timestep [1].
    """
    ports = {port.name: port.shape for port in unet.inputs}
    result, rows = dict(given), len(given["sample"])
    if TIME in ports:
        result[TIME] = sinusoids(np.repeat(given["timestep"], rows), int(ports[TIME][-1]))
    if ADDED in ports:
        result[ADDED] = added_embedding(given[POOLED], given[SIZES])
    for name in (name for name in ports if name in result and len(ports[name]) == 4):
        batch, *rest = result[name].shape
        result[name] = result[name].reshape(batch, *(1,) * (3 - len(rest)), *rest)
    return result


def guidance_embedding(scale: float, width: int) -> Array:
    """Embed a guidance scale as a full LCM is told it: float32 [1, width].

    The sinusoidal embedding of 1000 (scale - 1): sines, then cosines, of frequencies that fall
    geometrically from 1 to 1/10000 (arXiv 2310.04378, section 4.2, as diffusers computes it).
    """
    frequencies = np.power(10000.0, -np.linspace(0, 1, width // 2))
    angles = 1000 * (scale - 1) * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(np.float32)
