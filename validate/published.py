"""What others measured on a device, to hold predictions against."""

from dataclasses import dataclass

from converter.sizes import Size


@dataclass(frozen=True)
class Published:
    """A time measured on a device, in milliseconds, for the whole model of a family.

    `rows` is the batch that was computed in that time; `unet_parameters` says which model it was;
    `size` is None for what has none.
    """

    chip: str
    family: str
    unet_parameters: int
    size: Size | None
    component: str
    rows: int
    what: str
    ms: float
    conditions: str
    source: str

    @property
    def label(self) -> str:
        """In words: ``VAE decoder, 512x512``."""
        return self.what if self.size is None else f"{self.what}, {self.size}"


_SD15 = ("bm1684x", "sd15", 859_520_964)
_SDXL = ("bm1684x", "sdxl", 2_567_463_684)
_SD15_SOURCE = "published by Sophgo: sophon-demo, sample/StableDiffusionV1_5/README.md"
_SDXL_SOURCE = "published by Sophgo: sophon-demo, sample/StableDiffusionXL/README.md"

FIGURES = (
    Published(*_SD15, Size(512, 512), "unet", 2, "a step with guidance", 4808.42 / 20,
              "20 steps in 4808.42 ms; batch 2, BF16 by its scripts", _SD15_SOURCE),
    Published(*_SD15, Size(512, 512), "vae_decoder", 1, "VAE decoder", 493.20,
              "BF16 by its scripts", _SD15_SOURCE),
    Published(*_SD15, None, "text_encoder", 2, "text encoder, both prompts", 50.61,
              "F32, with the tokenizer", _SD15_SOURCE),
    Published(*_SDXL, Size(1024, 1024), "unet", 2, "a step with guidance", 37450.7 / 20,
              "20 steps in 37450.7 ms; batch 2, BF16", _SDXL_SOURCE),
    Published(*_SDXL, Size(1024, 1024), "vae_decoder", 1, "VAE decoder", 2099.22,
              "BF16", _SDXL_SOURCE),
)  # fmt: skip
"""On a BM1684X SoC, host and transfers included. Precision and batch are those of the scripts
beside each README (`get_unet_bmodel.sh` and so on)."""
