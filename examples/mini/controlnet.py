"""The ControlNet: a trainable copy of the UNet's encoder that reads edges (arXiv 2302.05543)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.mini.denoiser import Denoiser, noise_loss
from examples.mini.latents import TrainingSet
from examples.mini.modules import named
from examples.mini.pictures import edges
from examples.mini.training import Draw, Schedule, Weights, train

NO_CAPTION = 0.5
"""A caption is dropped this often, so that the edges and not the words decide the shape."""


def controlnet(unet: torch.nn.Module, seed: int) -> Any:
    """Build the ControlNet of a UNet: its encoder copied, the hint's path random, exits zero."""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    return ControlNetModel.from_unet(unet)


def residuals(
    net: Any, latent: torch.Tensor, t: torch.Tensor, context: torch.Tensor, hint: torch.Tensor
) -> list[torch.Tensor]:
    """Run the ControlNet; residuals in the order of the UNet's ports: middle first."""
    down, middle = net(latent, t, context, hint, return_dict=False)
    return [middle, *down]


def train_controlnet(
    path: Path, denoiser: Denoiser, pictures: TrainingSet, seed: int, schedule: Schedule
) -> Weights:
    """Train a ControlNet on the frozen denoiser: edges in, that shape at that place out."""
    net = controlnet(denoiser.unet, seed)

    def loss(d: Draw) -> torch.Tensor:
        bucket = pictures.bucket(d)
        chosen = bucket.choose(d)
        hints = [edges(bucket.scenes[index], bucket.size) for index in chosen]
        hint = torch.from_numpy(np.stack(hints))
        with torch.no_grad():
            context = denoiser.context(pictures.captions(bucket, chosen, d, NO_CAPTION))
        return noise_loss(
            bucket.latents[chosen],
            d,
            lambda noisy, t: denoiser.noise(
                noisy, t, context, *residuals(net, noisy, t, context, hint)
            ),
        )

    return train(path, seed, named("", net), loss, schedule)
