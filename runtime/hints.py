"""What a ControlNet follows: a picture of edges, depths or poses, as a user names it, read to size.

On the command line: ``[COMPONENT=]FILE[:SCALE]``, as in ``edges.png``, ``edges.png:0.8`` or
``controlnet_2=depth.png``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.architecture import CONTROLNET
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.files import blake3_of
from converter.parsing import finite_number
from converter.sizes import Size
from converter.weights import Array

EDGE = 0.25
"""Neighbours that differ by more of the range [-1, 1] have an edge between them."""


def edges_of(pictures: Array) -> Array:
    """The outlines of pictures [B, 3, H, W] in [-1, 1]: white on black, float32 in [0, 1].

    What an edge detector gives.
    """
    steps = [np.abs(np.diff(pictures, axis=axis, append=0)).max(axis=1) for axis in (-2, -1)]
    edges = (np.maximum(*steps) > EDGE).astype(np.float32)
    return np.repeat(edges[:, None], 3, axis=1)


@dataclass(frozen=True)
class Hint:
    """A picture, float32 [3, H, W] in [0, 1], for one ControlNet, and how strongly it is followed.

    The ControlNet's residuals are multiplied by `scale` before they are added to the UNet.
    """

    picture: Array
    component: str = CONTROLNET
    scale: float = 1.0


@dataclass(frozen=True)
class HintFile:
    """A hint that is still a file."""

    path: Path
    component: str = CONTROLNET
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "HintFile":
        """Read what the module's first lines show; raises InputError for anything else."""
        component, equals, rest = text.partition("=")
        if not equals or not is_controlnet(component):
            component, rest = CONTROLNET, text
        file, colon, scale = rest.rpartition(":")
        if not colon or Path(rest).exists():
            file, scale = rest, "1"
        value = finite_number(scale)
        if value is None:
            raise InputError(
                f"hint {text!r}: {scale!r} is no number: write FILE.png:0.8, or "
                "controlnet_2=FILE.png:0.8"
            )
        if not Path(file).is_file():
            raise InputError(f"hint {text!r}: there is no file {file}: check the path")
        return cls(Path(file), component, value)

    def __str__(self) -> str:
        return f"{self.component}={self.path}:{self.scale:g}"

    def identity(self) -> dict[str, object]:
        """Everything that a drawing depends on, as JSON."""
        content = blake3_of(self.path)
        return {"content": content, "component": self.component, "scale": self.scale}

    def read(self, size: Size) -> Hint:
        """Read the picture at a size: scaled to cover it, what stands over is cut off.

        Raises InputError for a file that is no picture.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(self.path) as image:
                fitted = ImageOps.fit(image.convert("RGB"), (size.width, size.height))
        except (OSError, UnidentifiedImageError) as e:
            raise InputError(
                f"{self.path}: no picture that can be read ({type(e).__name__}): give a PNG or "
                "JPEG of edges, depths or whatever the ControlNet was trained on"
            ) from e
        picture = np.asarray(fitted, np.float32).transpose(2, 0, 1) / np.float32(255)
        return Hint(picture, self.component, self.scale)
