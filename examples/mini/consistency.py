"""The LCM-LoRA: consistency distillation of the guided base model into a low-rank change.

After "LCM-LoRA: A Universal Stable-Diffusion Acceleration Module" (arXiv 2311.05556) and "Latent
Consistency Models" (arXiv 2310.04378): the student's answer at one time must equal its answer one
solver step earlier, where the step is a DDIM step of the teacher under guidance.
"""

from pathlib import Path

import torch

from examples.mini.denoiser import STEPS, Denoiser, at
from examples.mini.latents import TrainingSet
from examples.mini.lora import ATTENTION, RESIDUAL, LowRankChange
from examples.mini.training import Draw, Schedule, Weights, train

SOLVER_STEPS = 50
SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0
"""The constants of the boundary condition, as LCMScheduler of diffusers has them."""
HUBER = 0.001
BATCH = 0.5
"""Share of the full batch: a step runs the UNet four times and once backwards."""
RANK = 13
LAYERS = {"unet/": (*ATTENTION, *RESIDUAL, "downsamplers.0.conv", "upsamplers.0.conv")}


def consistency(latent: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the consistency function's value from predicted noise; at t = 0 it is the latent."""
    signal, spread = at(t)
    clean = (latent - spread * noise) / signal
    scaled = (t * TIMESTEP_SCALING)[:, None, None, None] ** 2
    skip = SIGMA_DATA**2 / (scaled + SIGMA_DATA**2)
    return skip * latent + (scaled / (scaled + SIGMA_DATA**2)).sqrt() * clean


def train_consistency(
    path: Path,
    denoiser: Denoiser,
    pictures: TrainingSet,
    guidance: float,
    seed: int,
    schedule: Schedule,
) -> Weights:
    """Distil `denoiser` under `guidance` into a low-rank change of its UNet."""
    student = LowRankChange(denoiser, LAYERS, RANK, seed)
    with torch.no_grad():
        unconditional = denoiser.context(pictures.empty[None])
    spacing = STEPS // SOLVER_STEPS

    def loss(d: Draw) -> torch.Tensor:
        bucket = pictures.bucket(d)
        chosen = bucket.choose(d, BATCH)
        latents = bucket.latents[chosen]
        count = len(chosen)
        later = (torch.randint(1, SOLVER_STEPS + 1, (count,), generator=d.generator)) * spacing - 1
        earlier = (later - spacing).clamp(min=0)
        signal, spread = at(later)
        noisy = signal * latents + spread * d.normal_like(latents)
        with torch.no_grad():
            context = denoiser.context(pictures.captions(bucket, chosen, d, dropped=0))
            both = torch.cat([context, unconditional.expand_as(context)])
            with student.off():
                twice = denoiser.noise(noisy.repeat(2, 1, 1, 1), later.repeat(2), both)
            wanted, free = twice.chunk(2)
            guided = free + guidance * (wanted - free)
            signal_before, spread_before = at(earlier)
            clean = (noisy - spread * guided) / signal
            stepped = signal_before * clean + spread_before * guided
            before = denoiser.noise(stepped, earlier, context)
            target = consistency(stepped, before, earlier)
        answer = consistency(noisy, denoiser.noise(noisy, later, context), later)
        return ((answer - target).square() + HUBER**2).sqrt().mean() - HUBER

    return train(path, seed, student.parameters(), loss, schedule)
