"""A UNet's hyper-parameters, read off the names and shapes of the original layout."""

import re
from collections.abc import Mapping

from converter.architecture import TIME_ID_WIDTH, UNetArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import HEAD_SIZE, extent
from converter.families.unet import UNET_PREFIX
from converter.sizes import LATENT_CHANNELS

Tensors = Mapping[str, TensorInfo]

_TRANSFORMER_LAYER = re.compile(
    r"model\.diffusion_model\.((?:input|output)_blocks\.\d+|middle_block)"
    r"\.1\.transformer_blocks\.(\d+)\."
)


def infer_unet(
    tensors: Tensors, attention_heads: int | None, time_ids: int
) -> UNetArchitecture | None:
    """Read the UNet's hyper-parameters off the names and shapes; None when there is no UNet.

    Two leave no trace there and are the family's: the number of attention heads (None: one per 64
    channels) and of time ids.
    """
    stem = tensors.get(f"{UNET_PREFIX}input_blocks.0.0.weight")
    if stem is None:
        return None
    depths = _transformer_depths(tensors)
    channels, down = _levels(tensors, depths)
    if not channels:
        return None
    out = tensors.get(f"{UNET_PREFIX}out.2.weight")
    addition = tensors.get(f"{UNET_PREFIX}label_emb.0.0.weight")
    condition = tensors.get(f"{UNET_PREFIX}time_embed.cond_proj.weight")
    projection = _first(tensors, ".1.proj_in.weight")
    return UNetArchitecture(
        in_channels=extent(stem, 1),
        out_channels=extent(out, 0) or LATENT_CHANNELS,
        block_channels=channels,
        down_depths=down,
        middle_depth=_middle_depth(tensors, depths),
        up_depths=_up_depths(down, depths),
        context_dim=extent(_first(tensors, "attn2.to_k.weight"), 1),
        attention_heads=tuple(attention_heads or max(1, width // HEAD_SIZE) for width in channels),
        linear_projection=projection is not None and len(projection.shape) == 2,
        pooled_dim=max(0, extent(addition, 1) - TIME_ID_WIDTH * time_ids),
        time_ids=0 if addition is None else time_ids,
        timestep_cond_dim=extent(condition, 1),
    )


def _levels(
    tensors: Tensors, depths: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Channels of each level, and the transformer depth behind each of its residual blocks."""
    channels: list[int] = []
    down: list[tuple[int, ...]] = []
    new_level, index = True, 1
    while True:
        block = f"input_blocks.{index}"
        if f"{UNET_PREFIX}{block}.0.op.weight" in tensors:
            new_level = True
        elif conv := tensors.get(f"{UNET_PREFIX}{block}.0.in_layers.2.weight"):
            if new_level:
                channels.append(extent(conv, 0))
                down.append(())
                new_level = False
            down[-1] += (depths.get(block, 0),)
        else:
            return tuple(channels), tuple(down)
        index += 1


def _transformer_depths(tensors: Tensors) -> dict[str, int]:
    """Block -> number of layers of its transformer, for blocks that have one."""
    depths: dict[str, int] = {}
    for name in tensors:
        if match := _TRANSFORMER_LAYER.match(name):
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


def _middle_depth(tensors: Tensors, depths: Mapping[str, int]) -> int | None:
    if any(name.startswith(f"{UNET_PREFIX}middle_block.") for name in tensors):
        return depths.get("middle_block", 0)
    return None


def _up_depths(
    down: tuple[tuple[int, ...], ...], depths: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    up, index = [], 0
    for level in reversed(down):
        blocks = range(index, index + len(level) + 1)
        up.append(tuple(depths.get(f"output_blocks.{block}", 0) for block in blocks))
        index = blocks.stop
    return tuple(up)


def _first(tensors: Tensors, ending: str) -> TensorInfo | None:
    return next((info for name, info in tensors.items() if name.endswith(ending)), None)
