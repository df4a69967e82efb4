"""The autoencoder's names: diffusers' ``decoder.up_blocks.0`` is originally ``decoder.up.3``.

Originally: https://github.com/CompVis/latent-diffusion, `ldm/modules/diffusionmodules/model.py`,
which counts the decoder's levels from the picture's side.
"""

import re
from collections.abc import Collection

ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",  # this one and those below: diffusers before 0.13
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}

RENAMED = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", r".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", r".mid.block_2."),
    (r"\.conv_shortcut\.", r".nin_shortcut."),
    (r"\.conv_norm_out\.", r".norm_out."),
)


def original_vae_names(names: Collection[str]) -> dict[str, str]:
    """Map each of diffusers' tensor names to the original one, without prefix."""
    levels = 0
    while any(name.startswith(f"decoder.up_blocks.{levels}.") for name in names):
        levels += 1
    return {name: _translate(name, levels) for name in names}


def _translate(name: str, levels: int) -> str:
    name = re.sub(
        r"^decoder\.up_blocks\.(\d+)\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", name
    )
    for pattern, spelling in RENAMED:
        name = re.sub(pattern, spelling, name)
    inside = re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name)
    if inside is None:
        return name
    return f"{inside[1]}.mid.attn_1.{ATTENTION.get(inside[2], inside[2])}.{inside[3]}"
