"""Stable Diffusion 1.x: the original single-file layout, at any width.

Names on the left are those of the diffusers and transformers modules (the graph's weights);
names on the right those of the original files (CompVis latent-diffusion). The order and the
shapes follow the published architecture: https://arxiv.org/abs/2112.10752, appendix E.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from converter.architecture import TextEncoderArchitecture, UNetArchitecture, VaeArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import Place, TensorRule

FAMILY = "sd15"
ATTENTION_HEADS = 8
CLIP_HEAD_SIZE = 64
SCALING_FACTOR = 0.18215
HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
"""Outputs of the convolutions on a ControlNet's hint, before the one to the UNet's width."""

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
CONTROLNET_PREFIX = "control_model."
TEXT_PREFIXES = (
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",  # written by older tools
)

KNOWN_UNUSED = (
    "model_ema.",
    "first_stage_model.loss.",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.transformer.embeddings.position_ids",
    "cond_stage_model.transformer.text_projection.",
    "cond_stage_model.logit_scale",
    "betas",
    "alphas_cumprod",
    "sqrt_",
    "log_one_minus_alphas_cumprod",
    "posterior_",
    "logvar",
    "lvlb_weights",
    "model_ema",
)
"""Prefixes of tensors that such files carry and that no component needs."""

Tensors = Mapping[str, TensorInfo]


def infer_unet(tensors: Tensors) -> UNetArchitecture | None:
    """Read the UNet's hyper-parameters off the names and shapes; None when there is no UNet."""
    blocks = f"{UNET_PREFIX}input_blocks."
    stem = tensors.get(f"{blocks}0.0.weight")
    if stem is None:
        return None
    channels: list[int] = []
    attention: list[bool] = []
    layers = 0
    new_level, index = True, 1
    while True:
        if f"{blocks}{index}.0.op.weight" in tensors:
            new_level = True
        elif (conv := tensors.get(f"{blocks}{index}.0.in_layers.2.weight")) is not None:
            if new_level:
                channels.append(conv.shape[0])
                attention.append(f"{blocks}{index}.1.norm.weight" in tensors)
                new_level = False
            layers += len(channels) == 1
        else:
            break
        index += 1
    context = (
        info.shape[1] for name, info in tensors.items() if name.endswith("attn2.to_k.weight")
    )
    return UNetArchitecture(
        in_channels=stem.shape[1],
        out_channels=tensors[f"{UNET_PREFIX}out.2.weight"].shape[0]
        if f"{UNET_PREFIX}out.2.weight" in tensors
        else 4,
        block_channels=tuple(channels),
        layers_per_block=layers,
        attention_levels=tuple(attention),
        context_dim=next(context, 0),
        attention_heads=ATTENTION_HEADS,
    )


def infer_text_encoder(tensors: Tensors) -> TextEncoderArchitecture | None:
    """Read the text encoder's hyper-parameters; None when there is none."""
    prefix = text_prefix(tensors)
    tokens = tensors.get(f"{prefix}embeddings.token_embedding.weight")
    positions = tensors.get(f"{prefix}embeddings.position_embedding.weight")
    first = tensors.get(f"{prefix}encoder.layers.0.mlp.fc1.weight")
    if tokens is None or positions is None or first is None:
        return None
    layers = 0
    while f"{prefix}encoder.layers.{layers}.mlp.fc1.weight" in tensors:
        layers += 1
    hidden = tokens.shape[1]
    return TextEncoderArchitecture(
        vocabulary=tokens.shape[0],
        positions=positions.shape[0],
        hidden_size=hidden,
        intermediate_size=first.shape[0],
        layers=layers,
        heads=max(1, hidden // CLIP_HEAD_SIZE),
        activation="quick_gelu",
    )


def infer_vae(tensors: Tensors) -> VaeArchitecture | None:
    """Read the autoencoder's hyper-parameters; None when encoder or decoder is missing."""
    down = f"{VAE_PREFIX}encoder.down."
    quant = tensors.get(f"{VAE_PREFIX}post_quant_conv.weight")
    if quant is None or f"{VAE_PREFIX}decoder.conv_in.weight" not in tensors:
        return None
    channels: list[int] = []
    while (conv := tensors.get(f"{down}{len(channels)}.block.0.conv1.weight")) is not None:
        channels.append(conv.shape[0])
    layers = 0
    while f"{down}0.block.{layers}.conv1.weight" in tensors:
        layers += 1
    if not channels:
        return None
    return VaeArchitecture(quant.shape[0], tuple(channels), layers, SCALING_FACTOR)


def text_prefix(tensors: Tensors) -> str:
    """The spelling of the text encoder's prefix that this file uses."""
    probe = "embeddings.token_embedding.weight"
    return next((p for p in TEXT_PREFIXES if p + probe in tensors), TEXT_PREFIXES[0])


def unet_rules(arch: UNetArchitecture) -> list[TensorRule]:
    """Every tensor of the UNet."""
    return list(_unet(arch))


def _unet(arch: UNetArchitecture) -> Iterator[TensorRule]:
    root = Place("", UNET_PREFIX)
    yield from _unet_down(root, arch)
    skips = [channels for channels, _ in down_residuals(arch)]
    yield from _unet_up(root, arch, skips, 4 * arch.block_channels[0])
    yield from root.at("conv_norm_out", "out.0").weight_and_bias(arch.block_channels[0])
    out = root.at("conv_out", "out.2")
    yield from out.weight_and_bias(arch.out_channels, arch.block_channels[0], 3, 3)


def down_residuals(arch: UNetArchitecture) -> list[tuple[int, int]]:
    """(channels, level) of every skip connection, in order: twelve for SD1.5."""
    shapes = [(arch.block_channels[0], 0)]
    for level, channels in enumerate(arch.block_channels):
        shapes += [(channels, level)] * arch.layers_per_block
        if level < len(arch.block_channels) - 1:
            shapes.append((channels, level + 1))
    return shapes


def _unet_down(root: Place, arch: UNetArchitecture) -> Iterator[TensorRule]:
    """Time embedding, stem, the way down and the middle: what a ControlNet is a copy of."""
    widths = arch.block_channels
    time = 4 * widths[0]
    yield from root.at("time_embedding.linear_1", "time_embed.0").weight_and_bias(time, widths[0])
    yield from root.at("time_embedding.linear_2", "time_embed.2").weight_and_bias(time, time)
    stem = root.at("conv_in", "input_blocks.0.0")
    yield from stem.weight_and_bias(widths[0], arch.in_channels, 3, 3)
    channels, index = widths[0], 1
    for level, width in enumerate(widths):
        here = f"down_blocks.{level}"
        for layer in range(arch.layers_per_block):
            block = root.at(f"{here}.resnets.{layer}", f"input_blocks.{index}.0")
            yield from _resnet(block, channels, width, time)
            if arch.attention_levels[level]:
                block = root.at(f"{here}.attentions.{layer}", f"input_blocks.{index}.1")
                yield from _transformer(block, width, arch.context_dim)
            channels = width
            index += 1
        if level < len(widths) - 1:
            sampler = root.at(f"{here}.downsamplers.0.conv", f"input_blocks.{index}.0.op")
            yield from sampler.weight_and_bias(width, width, 3, 3)
            index += 1
    for layer in (0, 1):
        block = root.at(f"mid_block.resnets.{layer}", f"middle_block.{2 * layer}")
        yield from _resnet(block, channels, channels, time)
    block = root.at("mid_block.attentions.0", "middle_block.1")
    yield from _transformer(block, channels, arch.context_dim)


def controlnet_rules(arch: UNetArchitecture) -> list[TensorRule]:
    """Every tensor of a ControlNet for this UNet, in the layout of lllyasviel's files.

    Layout: https://github.com/lllyasviel/ControlNet, `cldm/cldm.py`.
    """
    return list(_controlnet(arch))


def _controlnet(arch: UNetArchitecture) -> Iterator[TensorRule]:
    root = Place("", CONTROLNET_PREFIX)
    yield from _unet_down(root, arch)
    inputs = 3
    for index, outputs in enumerate((*HINT_CHANNELS, arch.block_channels[0])):
        name = {0: "conv_in", len(HINT_CHANNELS): "conv_out"}.get(index, f"blocks.{index - 1}")
        place = root.at(f"controlnet_cond_embedding.{name}", f"input_hint_block.{2 * index}")
        yield from place.weight_and_bias(outputs, inputs, 3, 3)
        inputs = outputs
    for index, (channels, _) in enumerate(down_residuals(arch)):
        place = root.at(f"controlnet_down_blocks.{index}", f"zero_convs.{index}.0")
        yield from place.weight_and_bias(channels, channels, 1, 1)
    middle = root.at("controlnet_mid_block", "middle_block_out.0")
    yield from middle.weight_and_bias(arch.block_channels[-1], arch.block_channels[-1], 1, 1)


def _unet_up(
    root: Place, arch: UNetArchitecture, skips: list[int], time: int
) -> Iterator[TensorRule]:
    channels, index = arch.block_channels[-1], 0
    levels = list(zip(arch.block_channels, arch.attention_levels, strict=True))[::-1]
    for level, (width, attention) in enumerate(levels):
        here = f"up_blocks.{level}"
        for layer in range(arch.layers_per_block + 1):
            block = root.at(f"{here}.resnets.{layer}", f"output_blocks.{index}.0")
            yield from _resnet(block, channels + skips.pop(), width, time)
            if attention:
                block = root.at(f"{here}.attentions.{layer}", f"output_blocks.{index}.1")
                yield from _transformer(block, width, arch.context_dim)
            channels = width
            index += 1
        if level < len(levels) - 1:
            spot = f"output_blocks.{index - 1}.{2 if attention else 1}.conv"
            sampler = root.at(f"{here}.upsamplers.0.conv", spot)
            yield from sampler.weight_and_bias(width, width, 3, 3)


def _resnet(block: Place, inputs: int, outputs: int, time: int) -> Iterator[TensorRule]:
    yield from block.at("norm1", "in_layers.0").weight_and_bias(inputs)
    yield from block.at("conv1", "in_layers.2").weight_and_bias(outputs, inputs, 3, 3)
    yield from block.at("time_emb_proj", "emb_layers.1").weight_and_bias(outputs, time)
    yield from block.at("norm2", "out_layers.0").weight_and_bias(outputs)
    yield from block.at("conv2", "out_layers.3").weight_and_bias(outputs, outputs, 3, 3)
    if inputs != outputs:
        skip = block.at("conv_shortcut", "skip_connection")
        yield from skip.weight_and_bias(outputs, inputs, 1, 1)


def _transformer(block: Place, width: int, context: int) -> Iterator[TensorRule]:
    yield from block.at("norm").weight_and_bias(width)
    yield from block.at("proj_in").weight_and_bias(width, width, 1, 1)
    inner = block.at("transformer_blocks.0")
    for name, source_width in (("attn1", width), ("attn2", context)):
        attention = inner.at(name)
        yield from attention.at("to_q").weight(width, width)
        yield from attention.at("to_k").weight(width, source_width)
        yield from attention.at("to_v").weight(width, source_width)
        yield from attention.at("to_out.0").weight_and_bias(width, width)
    yield from inner.at("ff.net.0.proj").weight_and_bias(8 * width, width)  # GEGLU: two halves
    yield from inner.at("ff.net.2").weight_and_bias(width, 4 * width)
    for name in ("norm1", "norm2", "norm3"):
        yield from inner.at(name).weight_and_bias(width)
    yield from block.at("proj_out").weight_and_bias(width, width, 1, 1)


def text_encoder_rules(arch: TextEncoderArchitecture, prefix: str) -> list[TensorRule]:
    """Every tensor of the text encoder; `prefix` is this file's spelling (`text_prefix`)."""
    return list(_text_encoder(arch, Place("", prefix)))


def _text_encoder(arch: TextEncoderArchitecture, root: Place) -> Iterator[TensorRule]:
    width = arch.hidden_size
    yield from root.at("embeddings.token_embedding").weight(arch.vocabulary, width)
    yield from root.at("embeddings.position_embedding").weight(arch.positions, width)
    for index in range(arch.layers):
        layer = root.at(f"encoder.layers.{index}")
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from layer.at(f"self_attn.{name}").weight_and_bias(width, width)
        for name in ("layer_norm1", "layer_norm2"):
            yield from layer.at(name).weight_and_bias(width)
        yield from layer.at("mlp.fc1").weight_and_bias(arch.intermediate_size, width)
        yield from layer.at("mlp.fc2").weight_and_bias(width, arch.intermediate_size)
    yield from root.at("final_layer_norm").weight_and_bias(width)


def vae_encoder_rules(arch: VaeArchitecture) -> list[TensorRule]:
    """Every tensor of the VAE encoder, the quantisation convolution included."""
    return list(_vae_encoder(arch))


def _vae_encoder(arch: VaeArchitecture) -> Iterator[TensorRule]:
    root = Place("", VAE_PREFIX)
    half = root.at("encoder")
    widths, moments = arch.block_channels, 2 * arch.latent_channels
    yield from half.at("conv_in").weight_and_bias(widths[0], 3, 3, 3)
    for level, (inputs, width) in enumerate(pairwise((widths[0], *widths))):
        for layer in range(arch.layers_per_block):
            block = half.at(f"down_blocks.{level}.resnets.{layer}", f"down.{level}.block.{layer}")
            yield from _vae_resnet(block, width if layer else inputs, width)
        if level < len(widths) - 1:
            sampler = half.at(
                f"down_blocks.{level}.downsamplers.0.conv", f"down.{level}.downsample.conv"
            )
            yield from sampler.weight_and_bias(width, width, 3, 3)
    yield from _vae_middle(half, widths[-1])
    yield from half.at("conv_norm_out", "norm_out").weight_and_bias(widths[-1])
    yield from half.at("conv_out").weight_and_bias(moments, widths[-1], 3, 3)
    yield from root.at("quant_conv").weight_and_bias(moments, moments, 1, 1)


def vae_decoder_rules(arch: VaeArchitecture) -> list[TensorRule]:
    """Every tensor of the VAE decoder, the quantisation convolution included."""
    return list(_vae_decoder(arch))


def _vae_decoder(arch: VaeArchitecture) -> Iterator[TensorRule]:
    root = Place("", VAE_PREFIX)
    half = root.at("decoder")
    widths = arch.block_channels[::-1]
    latent = arch.latent_channels
    yield from root.at("post_quant_conv").weight_and_bias(latent, latent, 1, 1)
    yield from half.at("conv_in").weight_and_bias(widths[0], latent, 3, 3)
    yield from _vae_middle(half, widths[0])
    for level, (inputs, width) in enumerate(pairwise((widths[0], *widths))):
        source = len(widths) - 1 - level  # the original counts levels from the picture's side
        for layer in range(arch.layers_per_block + 1):
            block = half.at(f"up_blocks.{level}.resnets.{layer}", f"up.{source}.block.{layer}")
            yield from _vae_resnet(block, width if layer else inputs, width)
        if level < len(widths) - 1:
            sampler = half.at(f"up_blocks.{level}.upsamplers.0.conv", f"up.{source}.upsample.conv")
            yield from sampler.weight_and_bias(width, width, 3, 3)
    yield from half.at("conv_norm_out", "norm_out").weight_and_bias(widths[-1])
    yield from half.at("conv_out").weight_and_bias(3, widths[-1], 3, 3)


def _vae_resnet(block: Place, inputs: int, outputs: int) -> Iterator[TensorRule]:
    yield from block.at("norm1").weight_and_bias(inputs)
    yield from block.at("conv1").weight_and_bias(outputs, inputs, 3, 3)
    yield from block.at("norm2").weight_and_bias(outputs)
    yield from block.at("conv2").weight_and_bias(outputs, outputs, 3, 3)
    if inputs != outputs:
        skip = block.at("conv_shortcut", "nin_shortcut")
        yield from skip.weight_and_bias(outputs, inputs, 1, 1)


def _vae_middle(half: Place, width: int) -> Iterator[TensorRule]:
    for layer in (0, 1):
        block = half.at(f"mid_block.resnets.{layer}", f"mid.block_{layer + 1}")
        yield from _vae_resnet(block, width, width)
    attention = half.at("mid_block.attentions.0", "mid.attn_1")
    yield from attention.at("group_norm", "norm").weight_and_bias(width)
    for name, source in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        yield from attention.at(name, source).weight_and_bias(width, width)
