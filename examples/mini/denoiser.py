"""Text encoder and UNet: the base model, and the second base trained on from it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from examples.mini.latents import TrainingSet
from examples.mini.modules import fresh, named
from examples.mini.training import Draw, Weights
from runtime.schedulers import alpha_bar

STEPS = 1000


ALPHAS = torch.tensor([alpha_bar(timestep) for timestep in range(STEPS)])
"""Cumulative signal powers of SD's noise schedule, float32 [1000]."""


def at(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the amplitudes of signal and noise at these timesteps, each [N, 1, 1, 1]."""
    power = ALPHAS[timesteps][:, None, None, None]
    return power.sqrt(), (1 - power).sqrt()


@dataclass(frozen=True)
class Denoiser:
    """A text encoder and a UNet that belong together."""

    text: torch.nn.Module
    unet: torch.nn.Module

    @classmethod
    def fresh(cls, seed: int) -> "Denoiser":
        """Build both with random weights."""
        return cls(fresh("text_encoder", seed), fresh("unet", seed + 1))

    @classmethod
    def loaded(cls, weights: Weights) -> "Denoiser":
        """Build both with the weights that `parameters` named; they do not require gradients."""
        made = cls.fresh(0)
        for prefix, module in made.parts():
            own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
            module.load_state_dict(own)
            module.requires_grad_(requires_grad=False)
        return made

    def parts(self) -> tuple[tuple[str, torch.nn.Module], ...]:
        """The modules and the prefixes of their parameters."""
        return ("text/", self.text), ("unet/", self.unet)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Every parameter under ``text/`` or ``unet/``."""
        return {n: p for prefix, module in self.parts() for n, p in named(prefix, module).items()}

    def context(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode token ids [N, 77] to what the UNet attends to, [N, 77, width]."""
        return self.text(tokens)[0]  # type: ignore[no-any-return]

    def noise(
        self,
        latent: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        *residuals: torch.Tensor,
    ) -> torch.Tensor:
        """Predict the noise in a noisy latent."""
        return self.unet(latent, timesteps, context, *residuals)  # type: ignore[no-any-return]


def noise_loss(
    latents: torch.Tensor, d: Draw, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Squared error of the predicted noise, weighted by min(SNR, 5) / SNR (arXiv 2303.09556)."""
    timesteps = torch.randint(0, STEPS, latents.shape[:1], generator=d.generator)
    noise = d.normal_like(latents)
    signal, spread = at(timesteps)
    error = (predict(signal * latents + spread * noise, timesteps) - noise).square()
    ratio = (signal / spread) ** 2
    weight = ratio.clamp(max=5) / ratio
    weighted: torch.Tensor = weight * error
    return weighted.mean()


def captioned_loss(denoiser: Denoiser, pictures: TrainingSet) -> Callable[[Draw], torch.Tensor]:
    """Return the loss of one step on captioned latents."""

    def loss(d: Draw) -> torch.Tensor:
        bucket = pictures.bucket(d)
        chosen = bucket.choose(d)
        context = denoiser.context(pictures.captions(bucket, chosen, d))
        return noise_loss(
            bucket.latents[chosen], d, lambda noisy, t: denoiser.noise(noisy, t, context)
        )

    return loss
