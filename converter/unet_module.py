"""The UNet as a traceable module: diffusers' own, configured from an architecture.

Needs the `torch` extra; nothing of it is imported before a module is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converter.architecture import TIME_ID_WIDTH
from converter.errors import InputError

if TYPE_CHECKING:
    import torch

    from converter.architecture import UNetArchitecture


def unet_module(arch: UNetArchitecture, *, residual_ports: bool) -> torch.nn.Module:
    """Build diffusers' UNet with positional inputs in the order of its ports."""
    from diffusers import UNet2DConditionModel

    class UNet(UNet2DConditionModel):  # type: ignore[misc]
        def forward(
            self,
            sample: torch.Tensor,
            timestep: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            *more: torch.Tensor,
        ) -> torch.Tensor:
            rest = list(more)
            added: dict[str, Any] = {}
            if arch.timestep_cond_dim:
                added["timestep_cond"] = rest.pop(0)
            if arch.addition_dim:
                conditions = {"text_embeds": rest.pop(0), "time_ids": rest.pop(0)}
                added["added_cond_kwargs"] = conditions
            if rest:
                added["mid_block_additional_residual"] = rest.pop(0)
                added["down_block_additional_residuals"] = tuple(rest)
            return super().forward(  # type: ignore[no-any-return]
                sample, timestep, encoder_hidden_states, return_dict=False, **added
            )[0]

    unet = UNet(**unet_config(arch))
    if not residual_ports:
        # More up-samplings than there are makes every latent size "not a multiple", so the
        # traced graph takes each up-sampled size from the skip connection, whatever it is.
        unet.num_upsamplers = 30
    return unet


def embedded_module(unet: Any) -> torch.nn.Module:
    """A UNet whose host computes embeddings; ports as `converter.components.embedded_interface`."""
    import torch

    class Embedded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(
            self, sample: torch.Tensor, text: torch.Tensor, *embeddings: torch.Tensor
        ) -> torch.Tensor:
            time, *added = (embedding.flatten(1) for embedding in embeddings)
            unet.get_time_embed = lambda **_: time
            unet.get_aug_embed = lambda **_: unet.add_embedding(*added) if added else None
            unused = (time,) * 2 * len(added)  # in the place of pooled text and sizes
            return unet(sample, torch.zeros(1), text.squeeze(1), *unused)  # type: ignore[no-any-return]

    return Embedded().eval()


def unet_config(arch: UNetArchitecture) -> dict[str, Any]:
    """Return the keyword arguments of diffusers' `UNet2DConditionModel`.

    Raises InputError for a UNet that it cannot be configured to be.
    """
    down = ["CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in arch.down_depths]
    up = ["CrossAttnUpBlock2D" if any(d) else "UpBlock2D" for d in arch.up_depths]
    depths = [list(level) for level in arch.down_depths]
    layers = [len(level) for level in depths]
    if not any(depths[-1]) and arch.middle_depth:
        depths[-1] = [arch.middle_depth]  # diffusers reads the middle block's depth there
    elif arch.middle_depth not in (None, 0, depths[-1][0]):
        raise InputError(
            f"a UNet with {arch.middle_depth} transformer layers in its middle block and "
            f"{depths[-1][0]} at its lowest level: no published model is so, and diffusers has no "
            "such module: use a checkpoint of a published architecture"
        )
    config: dict[str, Any] = {
        "in_channels": arch.in_channels,
        "out_channels": arch.out_channels,
        "block_out_channels": arch.block_channels,
        # ControlNetModel.from_unet reads no list here
        "layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "down_block_types": tuple(down),
        "mid_block_type": _middle_type(arch.middle_depth),
        "up_block_types": tuple(up),
        "cross_attention_dim": arch.context_dim,
        "attention_head_dim": list(arch.attention_heads),  # diffusers' name for numbers of heads
        "use_linear_projection": arch.linear_projection,
        "transformer_layers_per_block": depths,
        "reverse_transformer_layers_per_block": [list(level) for level in arch.up_depths],
    }
    if arch.addition_dim:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_ID_WIDTH,
            "projection_class_embeddings_input_dim": arch.addition_dim,
        }
    if arch.timestep_cond_dim:
        config["time_cond_proj_dim"] = arch.timestep_cond_dim
    return config


def _middle_type(depth: int | None) -> str | None:
    if depth is None:
        return None
    return "UNetMidBlock2DCrossAttn" if depth else "UNetMidBlock2D"
