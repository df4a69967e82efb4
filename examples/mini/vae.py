"""The VAE's training: both halves on small pictures, then the decoder alone."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from converter.sizes import Size
from converter.weights import Array
from examples.mini.modules import MINI, fresh, named
from examples.mini.pictures import DAY, DUSK, Palette, draw, mask, paint, random_scene
from examples.mini.training import Draw, Schedule, Weights, train

KL = 1e-5
SHAPE, EDGE = 3.0, 6.0
"""A shape covers about a fifth of a picture, and its edge, which is hardest, less: the weights
that their pixels have beyond the background's 1."""
POOL = 4096
ON_SMALL = 2800
"""Until this step every other batch is of 32x32 pictures: four times as many for the same time."""


def train_vae(path: Path, seed: int, schedule: Schedule) -> Weights:
    """Train both halves; names are ``encoder/...`` and ``decoder/...``."""
    encoder, decoder = fresh("vae_encoder", seed), fresh("vae_decoder", seed + 1)

    @cache  # drawn at the first step: a finished stage has none
    def pools() -> tuple[torch.Tensor, torch.Tensor]:
        small = pool(POOL, Size(32, 32), seed, (DAY, DUSK))
        large = pool(POOL, Size(64, 64), seed + 1, (DAY, DAY, DUSK))
        return torch.from_numpy(small), torch.from_numpy(large)

    def loss(d: Draw) -> torch.Tensor:
        small, large = pools()
        pictures, batch = (small, 16) if d.step < ON_SMALL and d.step % 2 == 0 else (large, 4)
        chosen = pictures[torch.randint(0, POOL, (batch,), generator=d.generator)]
        return _round_trip(encoder, decoder, chosen, d)

    parameters = {**named("encoder/", encoder), **named("decoder/", decoder)}
    return train(path, seed, parameters, loss, schedule)


def pool(count: int, size: Size, seed: int, palettes: tuple[Palette, ...]) -> Array:
    """Draw pictures of every kind: these palettes and any colours, filled and outlined."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, 3, size.height, size.width), np.float32)
    for picture in pictures:
        scene = random_scene(rng, size)
        outline = bool(rng.random() < 0.2)
        kind = int(rng.integers(len(palettes) + 1))
        if kind == len(palettes):
            covered = mask(scene, size, outline=outline)
            picture[:] = paint(covered, tuple(rng.random(3)), tuple(rng.random(3)))
        else:
            picture[:] = draw(scene, size, palettes[kind], outline=outline)
    return pictures


def _round_trip(
    encoder: torch.nn.Module, decoder: torch.nn.Module, pictures: torch.Tensor, d: Draw
) -> torch.Tensor:
    """L1 + L2 of the round trip, and a little KL divergence from the unit normal."""
    mean, log_variance = encoder(pictures.contiguous(memory_format=torch.channels_last)).chunk(2, 1)
    log_variance = log_variance.clamp(-30, 20)
    latent = mean + torch.exp(0.5 * log_variance) * d.normal_like(mean)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    distance: torch.Tensor = _distance(decoder(latent), pictures) + KL * divergence
    return distance


def _distance(picture: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """L1 + L2, in which the pixels of the shape and those along its edge count more."""
    away = ((wanted - wanted[:, :, :1, :1]).abs().amax(1, keepdim=True) > 0.05).float()
    widest, narrowest = (torch.nn.functional.max_pool2d(a, 5, 1, 2) for a in (away, 1 - away))
    edge = widest + narrowest - 1
    weight = 1 + SHAPE * away + EDGE * edge
    error = picture - wanted
    return (weight * (error.abs() + error.square())).mean() / weight.mean()


class Vae:
    """A trained VAE whose latents, times the architecture's scaling factor, have deviation one."""

    def __init__(self, weights: Weights, seed: int) -> None:
        """Fold the deviation of the trained latents into the two quantisation convolutions."""
        self.encoder, self.decoder = fresh("vae_encoder", 0), fresh("vae_decoder", 0)
        for prefix, half in (("encoder/", self.encoder), ("decoder/", self.decoder)):
            half.load_state_dict({name: weights[prefix + name] for name in half.state_dict()})
            half.requires_grad_(requires_grad=False)
        assert MINI.vae is not None
        self.factor, channels = MINI.vae.scaling_factor, MINI.vae.latent_channels
        pictures = torch.from_numpy(pool(512, Size(64, 64), seed, (DAY,)))
        shrink = 1 / (self.factor * float(self._mean(pictures).std()))
        moments = self.encoder.get_parameter("quant_conv.bias")
        moments[:channels] *= shrink
        moments[channels:] += 2 * float(np.log(shrink))  # the other half are log variances
        self.encoder.get_parameter("quant_conv.weight")[:channels] *= shrink
        self.decoder.get_parameter("post_quant_conv.weight").div_(shrink)

    def _mean(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.encoder(pictures).chunk(2, 1)[0]  # type: ignore[no-any-return]

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encode pictures [N, 3, H, W] to scaled latents: the mean of the posterior."""
        return self._mean(pictures) * self.factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode scaled latents to pictures."""
        with torch.no_grad():
            return self.decoder(latents / self.factor)  # type: ignore[no-any-return]

    def train_decoder(
        self, path: Path, seed: int, palettes: tuple[Palette, ...], schedule: Schedule
    ) -> None:
        """Train the decoder on alone; the encoder and so the latents stay."""
        kinds = [(Size(64, 64), 8, 3072), (Size(128, 128), 2, 512)]
        self.decoder.requires_grad_(requires_grad=True)

        @cache  # drawn and encoded when first trained on: a finished stage needs none
        def pairs(which: int) -> tuple[torch.Tensor, torch.Tensor]:
            size, _, count = kinds[which]
            pictures = torch.from_numpy(pool(count, size, seed, palettes))
            latents = [self._mean(part) for part in torch.split(pictures, 64)]
            return torch.cat(latents), pictures

        def loss(d: Draw) -> torch.Tensor:
            which = int(d.step % 4 == 3)
            _, batch, count = kinds[which]
            chosen = torch.randint(0, count, (batch,), generator=d.generator)
            latents, pictures = pairs(which)
            return _distance(self.decoder(latents[chosen]), pictures[chosen])

        weights = train(path, seed, named("", self.decoder), loss, schedule)
        self.decoder.load_state_dict(weights)
        self.decoder.requires_grad_(requires_grad=False)
