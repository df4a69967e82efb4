"""The KL autoencoder of every Stable Diffusion: its table in the original layout.

Names on the left are those of diffusers' `AutoencoderKL`. Architecture:
https://arxiv.org/abs/2112.10752, appendix G.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from converter.architecture import VaeArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import Place, TensorRule, extent

VAE_PREFIX = "first_stage_model."


def infer_vae(tensors: Mapping[str, TensorInfo], scaling_factor: float) -> VaeArchitecture | None:
    """Read the autoencoder's hyper-parameters; None when encoder or decoder is missing.

    The scaling factor leaves no trace in the weights: it is the family's.
    """
    down = f"{VAE_PREFIX}encoder.down."
    quant = tensors.get(f"{VAE_PREFIX}post_quant_conv.weight")
    if quant is None or f"{VAE_PREFIX}decoder.conv_in.weight" not in tensors:
        return None
    channels: list[int] = []
    while (conv := tensors.get(f"{down}{len(channels)}.block.0.conv1.weight")) is not None:
        channels.append(extent(conv, 0))
    layers = 0
    while f"{down}0.block.{layers}.conv1.weight" in tensors:
        layers += 1
    if not channels:
        return None
    return VaeArchitecture(extent(quant, 0), tuple(channels), layers, scaling_factor)


def vae_encoder_rules(arch: VaeArchitecture) -> Iterator[TensorRule]:
    """Every tensor of the VAE encoder, the quantisation convolution included."""
    root = Place("", VAE_PREFIX)
    half = root.at("encoder")
    widths, moments = arch.block_channels, 2 * arch.latent_channels
    yield from half.at("conv_in").weight_and_bias(widths[0], 3, 3, 3)
    for level, (inputs, width) in enumerate(pairwise((widths[0], *widths))):
        for layer in range(arch.layers_per_block):
            block = half.at(f"down_blocks.{level}.resnets.{layer}", f"down.{level}.block.{layer}")
            yield from _resnet(block, width if layer else inputs, width)
        if level < len(widths) - 1:
            sampler = half.at(
                f"down_blocks.{level}.downsamplers.0.conv", f"down.{level}.downsample.conv"
            )
            yield from sampler.weight_and_bias(width, width, 3, 3)
    yield from _middle(half, widths[-1])
    yield from half.at("conv_norm_out", "norm_out").weight_and_bias(widths[-1])
    yield from half.at("conv_out").weight_and_bias(moments, widths[-1], 3, 3)
    yield from root.at("quant_conv").weight_and_bias(moments, moments, 1, 1)


def vae_decoder_rules(arch: VaeArchitecture) -> Iterator[TensorRule]:
    """Every tensor of the VAE decoder, the quantisation convolution included."""
    root = Place("", VAE_PREFIX)
    half = root.at("decoder")
    widths = arch.block_channels[::-1]
    latent = arch.latent_channels
    yield from root.at("post_quant_conv").weight_and_bias(latent, latent, 1, 1)
    yield from half.at("conv_in").weight_and_bias(widths[0], latent, 3, 3)
    yield from _middle(half, widths[0])
    for level, (inputs, width) in enumerate(pairwise((widths[0], *widths))):
        source = len(widths) - 1 - level  # the original counts levels from the picture's side
        for layer in range(arch.layers_per_block + 1):
            block = half.at(f"up_blocks.{level}.resnets.{layer}", f"up.{source}.block.{layer}")
            yield from _resnet(block, width if layer else inputs, width)
        if level < len(widths) - 1:
            sampler = half.at(f"up_blocks.{level}.upsamplers.0.conv", f"up.{source}.upsample.conv")
            yield from sampler.weight_and_bias(width, width, 3, 3)
    yield from half.at("conv_norm_out", "norm_out").weight_and_bias(widths[-1])
    yield from half.at("conv_out").weight_and_bias(3, widths[-1], 3, 3)


def _resnet(block: Place, inputs: int, outputs: int) -> Iterator[TensorRule]:
    yield from block.at("norm1").weight_and_bias(inputs)
    yield from block.at("conv1").weight_and_bias(outputs, inputs, 3, 3)
    yield from block.at("norm2").weight_and_bias(outputs)
    yield from block.at("conv2").weight_and_bias(outputs, outputs, 3, 3)
    if inputs != outputs:
        skip = block.at("conv_shortcut", "nin_shortcut")
        yield from skip.weight_and_bias(outputs, inputs, 1, 1)


def _middle(half: Place, width: int) -> Iterator[TensorRule]:
    for layer in (0, 1):
        block = half.at(f"mid_block.resnets.{layer}", f"mid.block_{layer + 1}")
        yield from _resnet(block, width, width)
    attention = half.at("mid_block.attentions.0", "mid.attn_1")
    yield from attention.at("group_norm", "norm").weight_and_bias(width)
    for name, source in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        yield from attention.at(name, source).weight_and_bias(width, width)
