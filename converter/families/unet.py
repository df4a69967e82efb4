"""The UNet of every Stable Diffusion: one table, with parameters for what differs.

Names on the left are those of diffusers' `UNet2DConditionModel` (the graph's weights), names on
the right those of the original files. Architecture: https://arxiv.org/abs/2112.10752, appendix E,
and for SDXL https://arxiv.org/abs/2307.01952, section 2. Distilled models (BK-SDM, SSD-1B, Vega,
KOALA) leave out layers of the same table.
"""

from collections.abc import Iterator

from converter.architecture import UNetArchitecture
from converter.families.rules import Place, TensorRule

UNET_PREFIX = "model.diffusion_model."


def unet_rules(arch: UNetArchitecture) -> Iterator[TensorRule]:
    """Every tensor of the UNet."""
    root = Place("", UNET_PREFIX)
    yield from down_rules(root, arch)
    skips = [channels for channels, _ in down_residuals(arch)]
    yield from _up(root, arch, skips)
    yield from root.at("conv_norm_out", "out.0").weight_and_bias(arch.block_channels[0])
    out = root.at("conv_out", "out.2")
    yield from out.weight_and_bias(arch.out_channels, arch.block_channels[0], 3, 3)


def down_residuals(arch: UNetArchitecture) -> list[tuple[int, int]]:
    """(channels, level) of every skip connection, in order: twelve for SD1.5, nine for SDXL."""
    shapes = [(arch.block_channels[0], 0)]
    for level, channels in enumerate(arch.block_channels):
        shapes += [(channels, level)] * len(arch.down_depths[level])
        if level < len(arch.block_channels) - 1:
            shapes.append((channels, level + 1))
    return shapes


def down_rules(root: Place, arch: UNetArchitecture) -> Iterator[TensorRule]:
    """Embeddings, stem, the way down and the middle: what a ControlNet is a copy of."""
    widths, time = arch.block_channels, 4 * arch.block_channels[0]
    yield from _embeddings(root, arch, time)
    stem = root.at("conv_in", "input_blocks.0.0")
    yield from stem.weight_and_bias(widths[0], arch.in_channels, 3, 3)
    channels, index = widths[0], 1
    for level, width in enumerate(widths):
        here = f"down_blocks.{level}"
        for layer, depth in enumerate(arch.down_depths[level]):
            block = root.at(f"{here}.resnets.{layer}", f"input_blocks.{index}.0")
            yield from _resnet(block, channels, width, time)
            block = root.at(f"{here}.attentions.{layer}", f"input_blocks.{index}.1")
            yield from _transformer(block, width, depth, arch)
            channels = width
            index += 1
        if level < len(widths) - 1:
            sampler = root.at(f"{here}.downsamplers.0.conv", f"input_blocks.{index}.0.op")
            yield from sampler.weight_and_bias(width, width, 3, 3)
            index += 1
    if arch.middle_depth is None:
        return
    for layer in (0, 1) if arch.middle_depth else (0,):
        block = root.at(f"mid_block.resnets.{layer}", f"middle_block.{2 * layer}")
        yield from _resnet(block, channels, channels, time)
    block = root.at("mid_block.attentions.0", "middle_block.1")
    yield from _transformer(block, channels, arch.middle_depth, arch)


def _embeddings(root: Place, arch: UNetArchitecture, time: int) -> Iterator[TensorRule]:
    first = arch.block_channels[0]
    yield from root.at("time_embedding.linear_1", "time_embed.0").weight_and_bias(time, first)
    yield from root.at("time_embedding.linear_2", "time_embed.2").weight_and_bias(time, time)
    if arch.timestep_cond_dim:
        place = root.at("time_embedding.cond_proj", "time_embed.cond_proj")
        yield from place.weight(first, arch.timestep_cond_dim)
    if arch.addition_dim:
        place = root.at("add_embedding.linear_1", "label_emb.0.0")
        yield from place.weight_and_bias(time, arch.addition_dim)
        yield from root.at("add_embedding.linear_2", "label_emb.0.2").weight_and_bias(time, time)


def _up(root: Place, arch: UNetArchitecture, skips: list[int]) -> Iterator[TensorRule]:
    time = 4 * arch.block_channels[0]
    channels, index = arch.block_channels[-1], 0
    levels = list(zip(arch.block_channels[::-1], arch.up_depths, strict=True))
    for level, (width, depths) in enumerate(levels):
        here = f"up_blocks.{level}"
        for layer, depth in enumerate(depths):
            block = root.at(f"{here}.resnets.{layer}", f"output_blocks.{index}.0")
            yield from _resnet(block, channels + skips.pop(), width, time)
            block = root.at(f"{here}.attentions.{layer}", f"output_blocks.{index}.1")
            yield from _transformer(block, width, depth, arch)
            channels = width
            index += 1
        if level < len(levels) - 1:
            spot = f"output_blocks.{index - 1}.{2 if depths[-1] else 1}.conv"
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


def _transformer(
    block: Place, width: int, depth: int, arch: UNetArchitecture
) -> Iterator[TensorRule]:
    """Nothing where the depth is 0."""
    if depth == 0:
        return
    projection = (width, width) if arch.linear_projection else (width, width, 1, 1)
    yield from block.at("norm").weight_and_bias(width)
    yield from block.at("proj_in").weight_and_bias(*projection)
    for layer in range(depth):
        yield from _transformer_layer(block.at(f"transformer_blocks.{layer}"), width, arch)
    yield from block.at("proj_out").weight_and_bias(*projection)


def _transformer_layer(layer: Place, width: int, arch: UNetArchitecture) -> Iterator[TensorRule]:
    for name, source_width in (("attn1", width), ("attn2", arch.context_dim)):
        attention = layer.at(name)
        yield from attention.at("to_q").weight(width, width)
        yield from attention.at("to_k").weight(width, source_width)
        yield from attention.at("to_v").weight(width, source_width)
        yield from attention.at("to_out.0").weight_and_bias(width, width)
    yield from layer.at("ff.net.0.proj").weight_and_bias(8 * width, width)  # GEGLU: two halves
    yield from layer.at("ff.net.2").weight_and_bias(width, 4 * width)
    for name in ("norm1", "norm2", "norm3"):
        yield from layer.at(name).weight_and_bias(width)
