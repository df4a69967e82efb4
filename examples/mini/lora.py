"""Low-rank changes on frozen modules, and the style LoRA."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from examples.mini.denoiser import Denoiser, captioned_loss
from examples.mini.latents import TrainingSet
from examples.mini.training import Schedule, Weights, train

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
RESIDUAL = ("conv1", "conv2", "time_emb_proj", "conv_shortcut")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
STYLE_LAYERS = {"text/": TEXT, "unet/": (*ATTENTION, *RESIDUAL)}
STYLE_RANK = 8


class LowRank(torch.nn.Module):
    """What is added to one layer's output: ``up(down(x))``; it begins at nothing."""

    def __init__(self, layer: torch.nn.Module, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        outputs, inputs, *kernel = weight.shape
        self.down = torch.nn.Parameter(
            torch.randn((rank, inputs, *kernel), generator=generator) / weight[0].numel() ** 0.5
        )
        self.up = torch.nn.Parameter(torch.zeros(outputs, rank, *[1] * len(kernel)))
        self.layer = [layer]  # in a list, so that it is not registered as a child

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The change of the layer's output."""
        if self.down.dim() == 2:
            return x @ self.down.T @ self.up.T
        (layer,) = self.layer
        assert isinstance(layer, torch.nn.Conv2d) and not isinstance(layer.padding, str)
        hidden = torch.nn.functional.conv2d(
            x, self.down, stride=layer.stride, padding=layer.padding
        )
        return torch.nn.functional.conv2d(hidden, self.up)


class LowRankChange:
    """A low-rank change on chosen layers of a denoiser; alpha equals the rank."""

    def __init__(
        self, denoiser: Denoiser, layers: Mapping[str, tuple[str, ...]], rank: int, seed: int
    ) -> None:
        """`layers` maps ``text/`` and ``unet/`` to endings of layer names."""
        generator = torch.Generator().manual_seed(seed)
        self.rank = rank
        self.active = True
        self.layers: dict[str, LowRank] = {}
        for prefix, module in denoiser.parts():
            for name, layer in module.named_modules():
                chosen = name.endswith(layers.get(prefix, ())) and prefix in layers
                if chosen and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                    self.layers[prefix + name] = self._attach(layer, generator)

    def _attach(self, layer: torch.nn.Module, generator: torch.Generator) -> LowRank:
        change = LowRank(layer, self.rank, generator)

        def add(
            _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
            return output + change(inputs[0]) if self.active else output

        layer.register_forward_hook(add)
        return change

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Every factor: ``<layer>.down`` and ``<layer>.up``."""
        return {
            f"{name}.{factor}": value
            for name, change in self.layers.items()
            for factor, value in change.named_parameters()
        }

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the denoiser without the change."""
        self.active = False
        try:
            yield
        finally:
            self.active = True


def train_style(
    path: Path, denoiser: Denoiser, pictures: TrainingSet, seed: int, schedule: Schedule
) -> Weights:
    """Train a low-rank change of text encoder and UNet on pictures in another style."""
    change = LowRankChange(denoiser, STYLE_LAYERS, STYLE_RANK, seed)
    loss = captioned_loss(denoiser, pictures)
    return train(path, seed, change.parameters(), loss, schedule)
