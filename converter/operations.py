"""How many operations one run of a component takes, and how large its activations get.

Both are counted from its table of tensors.

Every weight of a convolution or a linear layer is used once at every place where the layer
stands, so its share is its number of parameters times those places; the products of queries and
keys, and of their weights and the values, come on top. Norms, activations and sums are left out:
they are under 1 % of the arithmetic. No graph is looked at, so this takes milliseconds.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from converter.architecture import (
    Architecture,
    Part,
    TextEncoderArchitecture,
    UNetArchitecture,
    VaeArchitecture,
)
from converter.components import part, rules, text_positions
from converter.families.rules import TensorRule
from converter.families.unet import down_residuals
from converter.sizes import LATENT_SCALE, Size

ONCE = ("time_embedding.", "add_embedding.")
"""Layers that see one vector per picture; so does every `time_emb_proj`."""

_HINT = re.compile(r"controlnet_cond_embedding\.(?:(conv_\w+)|blocks\.(\d+))\.")
_BLOCK = re.compile(r"(?:encoder\.|decoder\.)?(down|up|mid)_block(?:s\.(\d+))?\.")


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer, and how many `places` it is applied at.

    Its result stands at `tokens` places (cells, pixels or tokens). A layer of queries looks at
    `context` keys from each.
    """

    rule: TensorRule
    places: int
    tokens: int
    context: int

    @property
    def is_query(self) -> bool:
        """Whether it gives an attention's queries."""
        return self.rule.name.endswith(("to_q.weight", "q_proj.weight"))


def layers(component: str, architecture: Architecture, size: Size | None) -> Iterator[Layer]:
    """Every layer of a component at one picture size. A text encoder takes no `size`.

    `rules` name a UNet's and a VAE's layers as diffusers does, a text encoder's as transformers.
    """
    for rule in rules(component, architecture):
        if not rule.needed or len(rule.shape) < 2 or rule.name.endswith("_embedding.weight"):
            continue
        if component.startswith("text_encoder"):
            tokens = context = text_positions(architecture)
            places = 1 if rule.name.startswith("text_projection.") else tokens
        else:
            assert size is not None
            tokens = _cells(component, architecture, rule.name, size)
            context = text_positions(architecture) if ".attn2." in rule.name else tokens
            places = _places(rule.name, tokens, context)
        yield Layer(rule, places, tokens, context)


def operations(component: str, architecture: Architecture, batch: int, size: Size | None) -> int:
    """Additions and multiplications of one run. A text encoder takes no `size`."""
    count = 0
    for layer in layers(component, architecture, size):
        count += math.prod(layer.rule.shape) * layer.places
        if layer.is_query:
            count += 2 * layer.tokens * layer.context * layer.rule.shape[0]
    return 2 * batch * count


@dataclass(frozen=True)
class Activations:
    """The largest of what one run holds besides weights, in bytes of float32.

    `layer` is the most that one layer takes in and puts out, `attention` the largest matrix of
    attention weights of all heads, `kernel` the weight of the largest convolution (0: none).
    """

    layer: int
    attention: int
    kernel: int


def activations(
    component: str, architecture: Architecture, batch: int, size: Size | None
) -> Activations:
    """The largest activations of one run. A text encoder takes no `size`."""
    described = part(architecture, component)
    layer = attention = kernel = 0
    for each in layers(component, architecture, size):
        outputs, inputs, *window = each.rule.shape
        layer = max(layer, 4 * batch * (outputs + inputs) * each.places)
        if window:
            kernel = max(kernel, 4 * math.prod(each.rule.shape))
        if each.is_query:
            heads = _heads(each.rule.name, described)
            attention = max(attention, 4 * batch * heads * each.tokens * each.context)
    return Activations(layer, attention, kernel)


def _heads(name: str, described: Part | None) -> int:
    """Heads of the attention that this layer belongs to."""
    if isinstance(described, UNetArchitecture):
        return described.attention_heads[_unet_level(name, described)]
    return described.heads if isinstance(described, TextEncoderArchitecture) else 1


def _places(name: str, tokens: int, context: int) -> int:
    """At how many places a layer of a UNet or a VAE is applied."""
    if name.startswith(ONCE) or "time_emb_proj" in name:
        return 1
    return context if name.endswith(("to_k.weight", "to_v.weight")) else tokens


def _cells(component: str, architecture: Architecture, name: str, size: Size) -> int:
    """Latent cells, or pixels, at the level on which a layer puts out its result."""
    described = part(architecture, component)
    assert isinstance(described, UNetArchitecture | VaeArchitecture)
    scale, levels = 1, len(described.block_channels)
    if found := _HINT.match(name):  # it halves the picture's sides three times on its way
        level = {"conv_in": 0, "conv_out": 3}.get(found[1], (int(found[2] or 0) + 1) // 2)
    elif isinstance(described, UNetArchitecture):
        scale = LATENT_SCALE
        level = _unet_level(name, described)
    else:
        level = _block_level(name, levels)
        # The VAE's ends on the latents' side are as small as its middle.
        if name.startswith(("encoder.conv_out.", "quant_", "post_quant_", "decoder.conv_in.")):
            level = levels - 1
    return math.prod(-(-side // scale // 2**level) for side in (size.width, size.height))


def _unet_level(name: str, unet: UNetArchitecture) -> int:
    """The same for a UNet's or a ControlNet's layer, in halvings of the latents."""
    levels = len(unet.block_channels)
    if name.startswith("controlnet_mid_block."):
        return levels - 1
    if name.startswith("controlnet_down_blocks."):
        return down_residuals(unet)[int(name.split(".")[1])][1]
    return _block_level(name, levels)


def _block_level(name: str, levels: int) -> int:
    """How often the side was halved where this layer's result lies; 0 outside the blocks."""
    found = _BLOCK.match(name)
    if found is None:
        return 0
    block, index = found.groups()
    if block == "mid":
        return levels - 1
    if block == "down":
        return int(index) + (".downsamplers." in name)
    return levels - 1 - int(index) - (".upsamplers." in name)
