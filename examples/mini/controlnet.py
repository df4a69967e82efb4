"""The ControlNet: a trainable copy of the UNet's encoder that reads edges (arXiv 2302.05543)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from converter.components import interface
from converter.containers.opening import open_checkpoint
from converter.families.controlnet import controlnet_rules
from converter.interface import Interface, Port
from examples.mini.denoiser import Denoiser, noise_loss
from examples.mini.latents import TrainingSet
from examples.mini.modules import MINI, fresh, named
from examples.mini.pictures import edges
from examples.mini.training import Draw, Schedule, Weights, train
from runtime.sampling import Network
from targets.torch_reference import TorchReference

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


def open_controlnet(path: Path) -> Network:
    """Open a ControlNet file in the original layout as a network of a pipeline, in torch fp32."""
    assert MINI.unet is not None
    checkpoint = open_checkpoint(path)
    net = controlnet(fresh("unet", 0), seed=0)
    weights = {
        rule.name: torch.from_numpy(checkpoint.read(rule.source).astype(np.float32))
        for rule in controlnet_rules(MINI.unet)
    }
    net.load_state_dict({n: w.reshape(net.state_dict()[n].shape) for n, w in weights.items()})
    unet = interface("unet", MINI, residual_ports=True)
    hint = Port("controlnet_cond", "float32", ("batch", 3, "height", "width"))
    ports = Interface((*unet.inputs[:3], hint), unet.inputs[3:])
    names = [[port.name for port in side] for side in (ports.inputs, ports.outputs)]
    return Network(TorchReference(_MiddleFirst(net), *names), ports, batch=None)


class _MiddleFirst(torch.nn.Module):
    """Results in the order of the UNet's ports."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, latent: torch.Tensor, t: torch.Tensor, context: torch.Tensor, hint: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return tuple(residuals(self.net, latent, t, context, hint))
