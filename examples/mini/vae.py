"""The VAE's training: first on crops, then on whole pictures, then the decoder alone."""

from pathlib import Path

import numpy as np
import torch

from converter.sizes import Size
from converter.weights import Array
from examples.mini.modules import MINI, fresh, named
from examples.mini.pictures import DAY, DUSK, draw, mask, paint, random_scene
from examples.mini.training import Draw, Schedule, Weights, train

SEED = 1
POOL = 4096
CROP = 32
ON_CROPS = Schedule(steps=5500, rate=1.5e-3, hold=0.6, average=0.99)
KL = 1e-5


def pool(count: int, size: Size, seed: int) -> Array:
    """Draw pictures of every kind: both palettes, any colours, filled and outlined."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, 3, size.height, size.width), np.float32)
    for picture in pictures:
        scene = random_scene(rng, size)
        outline = bool(rng.random() < 0.3)
        kind = rng.integers(4)
        if kind == 0:
            covered = mask(scene, size, outline=outline)
            picture[:] = paint(covered, tuple(rng.random(3)), tuple(rng.random(3)))
        else:
            picture[:] = draw(scene, size, DUSK if kind == 1 else DAY, outline=outline)
    return pictures


def train_vae(work: Path) -> Weights:
    """Train encoder and decoder together; names are ``encoder/...`` and ``decoder/...``."""
    encoder, decoder = fresh("vae_encoder", SEED), fresh("vae_decoder", SEED + 1)
    for half in (encoder, decoder):
        half.to(memory_format=torch.channels_last)
    pictures = torch.from_numpy(pool(POOL, Size(64, 64), SEED))

    def loss(d: Draw) -> torch.Tensor:
        chosen = pictures[torch.randint(0, POOL, (16,), generator=d.torch)]
        top, left = torch.randint(0, 64 - CROP + 1, (2,), generator=d.torch).tolist()
        chosen = chosen[:, :, top : top + CROP, left : left + CROP]
        return reconstruction(encoder, decoder, chosen, d)

    return train(
        work / "vae.safetensors",
        SEED,
        {**named("encoder/", encoder), **named("decoder/", decoder)},
        loss,
        ON_CROPS,
    )


def reconstruction(
    encoder: torch.nn.Module, decoder: torch.nn.Module, pictures: torch.Tensor, d: Draw
) -> torch.Tensor:
    """Return the loss of the round trip: L1 + L2 + a little KL divergence from the unit normal."""
    mean, log_variance = encoder(pictures.contiguous(memory_format=torch.channels_last)).chunk(2, 1)
    log_variance = log_variance.clamp(-30, 20)
    latent = mean + torch.exp(0.5 * log_variance) * d.normal_like(mean)
    error = decoder(latent) - pictures
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() + error.square().mean() + KL * divergence
