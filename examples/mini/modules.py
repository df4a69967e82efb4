"""The miniature's networks as trainable torch modules, and their files in the original layout."""

from dataclasses import replace

import torch

from converter.architecture import (
    Architecture,
    TextEncoderArchitecture,
    VaeArchitecture,
)
from converter.families.published import SD15_UNET
from converter.modules import build_module

MINI = Architecture(
    family="sd15",
    unet=replace(SD15_UNET, block_channels=(64, 64, 64, 96), context_dim=64),
    text_encoder=TextEncoderArchitecture(49408, 77, 64, 256, 2, 1, "quick_gelu"),
    vae=VaeArchitecture(4, (64, 64, 64, 64), 1, 0.18215),
)
"""SD1.5's topology at a small width. No level is 32 wide: with the 32 groups that SD's norms have
everywhere, each channel would be normalised alone, and a flat colour lost."""


def fresh(component: str, seed: int) -> torch.nn.Module:
    """Build a component with random weights that require gradients.

    Norms start at one, biases at zero, embeddings at a deviation of 0.02, everything else
    uniform within +-sqrt(1 / fan-in), torch's own rule for linear layers and convolutions.
    """
    module = build_module(component, MINI, residual_ports=component == "unet")
    generator = torch.Generator().manual_seed(seed)
    module.load_state_dict(
        {name: _initial(name, t, generator) for name, t in module.state_dict().items()},
        assign=True,
    )
    if component.startswith("vae"):  # convolutions of many pixels are a third faster so
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.requires_grad_(requires_grad=True)


def _initial(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if like.dim() == 1:
        scale = name.endswith("weight")  # the only vectors called weight are norms' scales
        return torch.ones(like.shape) if scale else torch.zeros(like.shape)
    if "embedding.weight" in name:
        return 0.02 * torch.randn(like.shape, generator=generator)
    bound = float(like[0].numel() ** -0.5)
    return torch.rand(like.shape, generator=generator).mul(2 * bound).sub(bound)


def named(prefix: str, module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """List a module's parameters under a prefix."""
    return {prefix + name: value for name, value in module.named_parameters()}
