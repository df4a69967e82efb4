"""A ControlNet as a traceable module: diffusers' own, configured from an architecture.

Needs the `torch` extra; nothing of it is imported before a module is built.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converter.unet_module import unet_config

if TYPE_CHECKING:
    import torch

    from converter.architecture import UNetArchitecture

UNET_ONLY = ("out_channels", "up_block_types", "reverse_transformer_layers_per_block")
"""Keyword arguments of diffusers' UNet that its ControlNet does not know."""


def controlnet_module(arch: UNetArchitecture) -> torch.nn.Module:
    """Build diffusers' ControlNet with positional inputs in the order of its ports.

    Its results are those of `converter.components.interface`: the residuals of the way down, then
    that of the middle, all at full strength.
    """
    from diffusers import ControlNetModel

    class ControlNet(ControlNetModel):  # type: ignore[misc]
        def forward(
            self,
            sample: torch.Tensor,
            timestep: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            *more: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            hint, *rest = more
            added: dict[str, Any] = {}
            if arch.addition_dim:
                added["added_cond_kwargs"] = {"text_embeds": rest[0], "time_ids": rest[1]}
            down, middle = super().forward(
                sample, timestep, encoder_hidden_states, hint, return_dict=False, **added
            )
            return (*down, middle)

    config = unet_config(replace(arch, up_depths=arch.down_depths))
    return ControlNet(**{name: v for name, v in config.items() if name not in UNET_ONLY})
