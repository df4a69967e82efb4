"""Train the miniature from nothing, stage by stage.

    python -m examples.mini.train WORK                    every stage that is not finished yet
    python -m examples.mini.train WORK --only lcm style   these stages, after those below them

A finished stage leaves a file in WORK and is not run again; a killed one goes on from its last
save. The last stage, `files`, writes the five files in the original layouts to WORK/files. Stages
that build on the base alone can run side by side, each with `--only` and `--threads 1`.
"""

import argparse
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

from examples.mini.consistency import train_consistency
from examples.mini.controlnet import train_controlnet
from examples.mini.denoiser import Denoiser, captioned_loss
from examples.mini.latents import Kind, TrainingSet
from examples.mini.layout import write_checkpoint, write_controlnet, write_lora
from examples.mini.lora import train_style
from examples.mini.pictures import DAY, DUSK
from examples.mini.training import Schedule, Weights, train
from examples.mini.vae import Vae, train_vae

GUIDANCE = 4.0
"""The guidance that the base is drawn with, and that the LCM-LoRA has swallowed."""

VAE = Schedule(steps=6000, rate=1.5e-3, hold=0.64, average=0.99)
DECODER = Schedule(steps=4600, rate=8e-4, hold=0.4, average=0.99)
BASE = Schedule(steps=9600, rate=1e-3)
STYLE = Schedule(steps=1500, rate=1e-3, warm_up=50, average=0.99)
LCM = Schedule(steps=2000, rate=4e-4, warm_up=100, hold=0.3, average=0.99)
CONTROLNET = Schedule(steps=1500, rate=1e-3, warm_up=100, average=0.99)
DUSK_BASE = Schedule(steps=500, rate=4e-4, warm_up=100, average=0.99)
DUSK_DECODER = Schedule(steps=250, rate=2e-4, warm_up=50, average=0.99)


class Studio:
    """The stages, each trained or read back when first asked for."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def path(self, stage: str) -> Path:
        """Where a finished stage is kept."""
        return self.work / f"{stage}.safetensors"

    def vae(self) -> Vae:
        """Return the VAE as its first stage leaves it."""
        return Vae(train_vae(self.path("vae"), 1, VAE), seed=2)

    def decoder(self) -> Vae:
        """Return the VAE with its decoder trained on."""
        vae = self.vae()
        vae.train_decoder(self.path("decoder"), 30, (DAY, DUSK), DECODER)
        return vae

    def dusk_decoder(self) -> Vae:
        """Return the VAE with a decoder that has seen dusk alone."""
        vae = self.decoder()
        vae.train_decoder(self.path("dusk-decoder"), 31, (DUSK,), DUSK_DECODER)
        return vae

    def pictures(self, kind: Kind, seed: int) -> TrainingSet:
        """Return a training set under the trained encoder."""
        return TrainingSet(self.work, kind, seed, self.vae().encode)

    @cached_property
    def day(self) -> TrainingSet:
        """The base model's pictures."""
        return self.pictures(Kind("day"), 10)

    def base(self) -> Weights:
        """Text encoder and UNet."""
        denoiser = Denoiser.fresh(20)
        return self._denoiser("base", denoiser, self.day, 21, BASE)

    def dusk(self) -> Weights:
        """Text encoder and UNet trained on from the base, on the dusk palette."""
        denoiser = Denoiser.loaded(self.base())
        for _, module in denoiser.parts():
            module.requires_grad_(requires_grad=True)
        pictures = self.pictures(Kind("dusk", DUSK, share=0.25), 11)
        return self._denoiser("dusk", denoiser, pictures, 22, DUSK_BASE)

    def _denoiser(
        self, stage: str, denoiser: Denoiser, pictures: TrainingSet, seed: int, schedule: Schedule
    ) -> Weights:
        loss = captioned_loss(denoiser, pictures)
        return train(self.path(stage), seed, denoiser.parameters(), loss, schedule)

    def style(self) -> Weights:
        """The low-rank change that draws outlines."""
        denoiser = Denoiser.loaded(self.base())
        pictures = self.pictures(Kind("outline", outline=True, share=0.25), 12)
        return train_style(self.path("style"), denoiser, pictures, 23, STYLE)

    def lcm(self) -> Weights:
        """The low-rank change that draws in four steps."""
        denoiser = Denoiser.loaded(self.base())
        return train_consistency(self.path("lcm"), denoiser, self.day, GUIDANCE, 24, LCM)

    def controlnet(self) -> Weights:
        """The ControlNet that follows edges."""
        denoiser = Denoiser.loaded(self.base())
        return train_controlnet(self.path("controlnet"), denoiser, self.day, 25, CONTROLNET)

    def files(self) -> None:
        """Write the five files in the original layouts."""
        folder = self.work / "files"
        folder.mkdir(exist_ok=True)
        for name, vae, denoiser in (
            ("mini-sd15", self.decoder(), self.base()),
            ("mini-sd15-dusk", self.dusk_decoder(), self.dusk()),
        ):
            trained = Denoiser.loaded(denoiser)
            parts = {
                "text_encoder": trained.text,
                "unet": trained.unet,
                "vae_encoder": vae.encoder,
                "vae_decoder": vae.decoder,
            }
            write_checkpoint(
                folder / f"{name}.safetensors", {n: m.state_dict() for n, m in parts.items()}
            )
        write_lora(folder / "mini-style-lora.safetensors", self.style())
        write_lora(folder / "mini-lcm-lora.safetensors", self.lcm())
        write_controlnet(folder / "mini-controlnet.safetensors", self.controlnet())


STAGES: dict[str, Callable[[Studio], object]] = {
    "vae": Studio.vae,
    "base": Studio.base,
    "decoder": Studio.decoder,
    "lcm": Studio.lcm,
    "controlnet": Studio.controlnet,
    "style": Studio.style,
    "dusk": Studio.dusk,
    "dusk-decoder": Studio.dusk_decoder,
    "files": Studio.files,
}


def main() -> None:
    """Run the stages that the command line asks for."""
    parser = argparse.ArgumentParser(description="Train the miniature Stable Diffusion.")
    parser.add_argument("work", type=Path, help="folder of half-finished and finished stages")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    studio = Studio(options.work)
    for name in options.only:
        STAGES[name](studio)


if __name__ == "__main__":
    main()
