"""The UNet's names: diffusers' ``down_blocks.0.resnets.1`` is ``input_blocks.2.0`` originally.

Originally: `ldm/modules/diffusionmodules/openaimodel.py` of
https://github.com/CompVis/latent-diffusion, which numbers blocks through all levels. The numbers
follow from which names there are, so a UNet of any depth is translated; a name that belongs nowhere
stays as it is, and the family's check reports it.
"""

from collections.abc import Collection

ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_unet_names(names: Collection[str]) -> dict[str, str]:
    """Map each of diffusers' tensor names to the original one, without prefix."""
    modules = {
        ".".join(parts[:count]) for name in names if (parts := name.split(".")) for count in (4, 2)
    }
    table = {**ENDS, **_way_down(modules), **_way_up(modules)}
    return {name: _translate(name, table) for name in names}


def _way_down(modules: Collection[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    index, level = 1, 0
    while f"down_blocks.{level}" in modules:
        here, layer = f"down_blocks.{level}", 0
        while f"{here}.resnets.{layer}" in modules:
            table[f"{here}.resnets.{layer}"] = f"input_blocks.{index}.0"
            table[f"{here}.attentions.{layer}"] = f"input_blocks.{index}.1"
            index, layer = index + 1, layer + 1
        if f"{here}.downsamplers.0" in modules:
            table[f"{here}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
            index += 1
        level += 1
    return table


def _way_up(modules: Collection[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    index, level = 0, 0
    while f"up_blocks.{level}" in modules:
        here, layer = f"up_blocks.{level}", 0
        while f"{here}.resnets.{layer}" in modules:
            table[f"{here}.resnets.{layer}"] = f"output_blocks.{index}.0"
            table[f"{here}.attentions.{layer}"] = f"output_blocks.{index}.1"
            index, layer = index + 1, layer + 1
        slot = 2 if f"{here}.attentions.0" in modules else 1  # it follows the attention in the list
        table[f"{here}.upsamplers.0.conv"] = f"output_blocks.{index - 1}.{slot}.conv"
        level += 1
    return table


def _translate(name: str, table: dict[str, str]) -> str:
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module in table:
            rest = parts[count:]
            if ".resnets." in module:
                rest[0] = RESNET.get(rest[0], rest[0])
            return ".".join([table[module], *rest])
    return name
