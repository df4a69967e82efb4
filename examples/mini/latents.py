"""Training sets: drawn scenes as latents and token ids, one bucket a picture size."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from converter.files import replacing
from converter.sizes import Size
from examples.mini.pictures import DAY, Palette, Scene, draw, random_scene
from examples.mini.training import Draw
from runtime.tokenizer import tokenize

CHUNK = 64
NO_CAPTION = 0.1
"""How often a caption is dropped, so that guidance has an unconditional half."""


@dataclass(frozen=True)
class Kind:
    """How the scenes of a training set are drawn."""

    name: str
    palette: Palette = field(default_factory=lambda: DAY)
    outline: bool = False
    share: float = 1.0
    """Of the full number of pictures."""


@dataclass(frozen=True)
class Bucket:
    """All pictures of one size. `tokens` int64 [N, 2, 77]: caption without and with a size word."""

    size: Size
    batch: int
    scenes: list[Scene]
    latents: torch.Tensor
    tokens: torch.Tensor

    def choose(self, d: Draw, share: float = 1.0) -> torch.Tensor:
        """Choose the indices of one step's pictures: a share of the full batch."""
        return torch.randint(0, len(self.scenes), (int(self.batch * share),), generator=d.generator)


SIZES = (
    (Size(64, 64), 32, 8192, 0.30),
    (Size(128, 64), 16, 2048, 0.20),
    (Size(64, 128), 16, 2048, 0.25),
    (Size(128, 128), 8, 1280, 0.25),
)
"""Size, pictures a step, pictures in all, share of the steps: a step costs the same at each."""

Encode = Callable[[torch.Tensor], torch.Tensor]


class TrainingSet:
    """The buckets of one kind. `encode` turns pictures [N, 3, H, W] into scaled latents."""

    def __init__(self, work: Path, kind: Kind, seed: int, encode: Encode) -> None:
        self.empty = torch.from_numpy(tokenize([""]))[0]
        self.buckets = [
            _bucket(work, kind, [seed, number], encode, size, batch, int(count * kind.share))
            for number, (size, batch, count, _) in enumerate(SIZES)
        ]

    def bucket(self, d: Draw) -> Bucket:
        """Choose the size of one step."""
        return self.buckets[int(d.rng.choice(len(SIZES), p=[share for *_, share in SIZES]))]

    def captions(
        self, bucket: Bucket, chosen: torch.Tensor, d: Draw, dropped: float = NO_CAPTION
    ) -> torch.Tensor:
        """Token ids of the chosen pictures, a share of them without a caption."""
        wording = torch.randint(0, 2, chosen.shape, generator=d.generator)
        tokens = bucket.tokens[chosen, wording]
        drop = torch.rand(chosen.shape, generator=d.generator) < dropped
        return torch.where(drop[:, None], self.empty, tokens)


def _bucket(
    work: Path,
    kind: Kind,
    seed: list[int],
    encode: Encode,
    size: Size,
    batch: int,
    count: int,
) -> Bucket:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, size) for _ in range(count)]
    path = work / f"latents-{kind.name}-{size}.safetensors"
    if not path.exists():
        latents = torch.cat(list(_encode(scenes, size, kind, encode)))
        with replacing(path) as partial:
            save_file({"latents": latents.contiguous()}, partial)
    captions = [scene.caption(size_word=word) for scene in scenes for word in (False, True)]
    known = sorted(set(captions))
    table = torch.from_numpy(tokenize(known))
    rows = {caption: row for row, caption in enumerate(known)}
    tokens = table[[rows[caption] for caption in captions]].reshape(count, 2, -1)
    return Bucket(size, batch, scenes, load_file(path)["latents"], tokens)


def _encode(scenes: list[Scene], size: Size, kind: Kind, encode: Encode) -> Iterable[torch.Tensor]:
    for first in range(0, len(scenes), CHUNK):
        part = scenes[first : first + CHUNK]
        pictures = [draw(scene, size, kind.palette, outline=kind.outline) for scene in part]
        yield encode(torch.from_numpy(np.stack(pictures)))
