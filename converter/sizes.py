"""Picture sizes: the user's WIDTHxHEIGHT."""

import re
from dataclasses import dataclass

from converter.errors import InputError

LATENT_SCALE = 8
"""Pixels per latent cell along each side (the KL-f8 autoencoder of every Stable Diffusion)."""

LATENT_CHANNELS = 4
"""Channels of that autoencoder's latents."""

LARGEST_SIDE = 8192
"""Beyond this no accelerator takes a picture; a typing error is likelier."""


@dataclass(frozen=True, order=True)
class Size:
    """A picture size in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read ``WIDTHxHEIGHT``; raises InputError for anything else."""
        match = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", text)
        if match is None:
            raise InputError(f"size {text!r} is not WIDTHxHEIGHT: write for example 768x512")
        return cls(int(match[1]), int(match[2]))


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Read a comma-separated list of sizes, duplicates dropped, order kept."""
    sizes = tuple(dict.fromkeys(Size.parse(part) for part in text.split(",") if part.strip()))
    if not sizes:
        raise InputError("no size given: write for example --sizes 512x512,768x512")
    return sizes


def check_size(size: Size, multiple: int) -> None:
    """Raise InputError when `size` is not a positive multiple of `multiple` on both sides."""
    sides = (size.width, size.height)
    if all(0 < side <= LARGEST_SIDE and side % multiple == 0 for side in sides):
        return
    nearest = [
        max(multiple, min(LARGEST_SIDE, round(side / multiple) * multiple)) for side in sides
    ]
    raise InputError(
        f"size {size} cannot be taken: width and height must be multiples of {multiple} "
        f"up to {LARGEST_SIDE}; the nearest that works is {nearest[0]}x{nearest[1]}"
    )
