"""How well the miniature draws: 50 fixed prompts, judged by `examples.mini.recognise`.

    python -m examples.mini.score [--files FOLDER] [--sizes 64x64,128x128] [--prompts 50]

Everything runs through the tool itself: `export` merges the LoRAs, the fp32 reference draws.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converter.adapters.choice import AdapterChoice
from converter.architecture import CONTROLNET
from converter.bundle import Bundle
from converter.export import ExportRequest, export
from converter.sizes import Size, parse_sizes
from converter.weights import Array
from examples.mini.pictures import DAY, DUSK, SHAPES, Palette, Scene, edges, random_scene
from examples.mini.recognise import is_outline, overlap_with, recognise
from runtime.hints import Hint
from runtime.sampling import PictureRequest, Pipeline
from runtime.staging import open_reference
from validate.references import open_torch_reference

FILES = Path(__file__).parent
SQUARE = Size(64, 64)
SIZES = (SQUARE, Size(128, 64), Size(64, 128), Size(128, 128))
PROMPTS = 50
IN_PLACE = 0.6
"""Intersection over union from which a shape stands where the edges are."""

GUIDED = PictureRequest("", scheduler="ddim", steps=20, guidance=4.0)
"""How the base models are drawn with."""
QUICK = PictureRequest("", scheduler="lcm", steps=4, guidance=1.0)
"""How the base with the LCM-LoRA is drawn with."""


def fixed_scenes(count: int = PROMPTS, size: Size = SQUARE) -> list[Scene]:
    """Return the fixed scenes: the shapes in turn, colours and places drawn from one seed."""
    rng = np.random.default_rng(2024)
    shapes = list(SHAPES)
    return [
        replace(random_scene(rng, size), shape=shapes[index % len(shapes)])
        for index in range(count)
    ]


@dataclass(frozen=True)
class Recipe:
    """A checkpoint of the miniature, what is merged into it, and how it is drawn with."""

    checkpoint: str
    loras: tuple[str, ...] = ()
    request: PictureRequest = GUIDED
    palette: str = "day"
    controlnet: str | None = None

    @property
    def colours(self) -> Palette:
        """What the colours' names look like."""
        return DUSK if self.palette == "dusk" else DAY

    def export(self, files: Path, output: Path) -> Bundle:
        """Export the checkpoint with its LoRAs merged, and its ControlNet beside it."""

        def file(name: str) -> Path:
            return files / f"{name}.safetensors"

        adapters = tuple(AdapterChoice(file(name)) for name in self.loras)
        nets = {} if self.controlnet is None else {CONTROLNET: file(self.controlnet)}
        return export(ExportRequest(file(self.checkpoint), output, adapters, parts=nets))


RECIPES = {
    "base, 20 steps": Recipe("mini-sd15"),
    "style LoRA": Recipe("mini-sd15", ("mini-style-lora",)),
    "LCM-LoRA, 4 steps": Recipe("mini-sd15", ("mini-lcm-lora",), QUICK),
    "dusk base": Recipe("mini-sd15-dusk", palette="dusk"),
}
CONTROLLED = Recipe("mini-sd15", controlnet="mini-controlnet")


@contextmanager
def reference(recipe: Recipe, files: Path, size: Size = SQUARE) -> Iterator[Pipeline]:
    """Open the fp32 reference of a recipe."""
    nets = () if recipe.controlnet is None else (CONTROLNET,)
    with tempfile.TemporaryDirectory() as folder:
        bundle = recipe.export(files, Path(folder))
        with open_reference(bundle, size, open_torch_reference, nets) as pipeline:
            yield pipeline


def draw(pipeline: Pipeline, scenes: Sequence[Scene], request: PictureRequest) -> list[Array]:
    """Draw the caption of every scene, each from its own seed."""
    return [
        pipeline.draw(replace(request, prompt=scene.caption(), seed=index)).picture
        for index, scene in enumerate(scenes)
    ]


def accuracy(pictures: Sequence[Array], scenes: Sequence[Scene], palette: Palette) -> float:
    """Return the share of pictures with the right shape, colour and background."""
    seen = zip(pictures, scenes, strict=True)
    return float(np.mean([recognise(picture, palette).shows(scene) for picture, scene in seen]))


def outlined(pictures: Sequence[Array], scenes: Sequence[Scene]) -> float:
    """Return the share of pictures that show their scene's shape as an outline."""
    seen = zip(pictures, scenes, strict=True)
    return float(np.mean([is_outline(picture, scene.shape) for picture, scene in seen]))


def follow_edges(pipeline: Pipeline, scenes: Sequence[Scene]) -> list[Array]:
    """Draw the same prompts with a ControlNet: place and size come from the edges alone."""
    return [
        pipeline.draw(
            replace(GUIDED, prompt=scene.caption(), seed=index),
            [Hint(edges(scene, pipeline.size))],
        ).picture
        for index, scene in enumerate(scenes)
    ]


def in_place(pictures: Sequence[Array], scenes: Sequence[Scene]) -> float:
    """Return the share of pictures whose shape stands where the scene has it."""
    seen = zip(pictures, scenes, strict=True)
    return float(np.mean([overlap_with(picture, scene) >= IN_PLACE for picture, scene in seen]))


def main() -> None:
    """Print every score."""
    parser = argparse.ArgumentParser(description="Score the miniature's pictures.")
    parser.add_argument("--files", type=Path, default=FILES, help="where the five files are")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="comma-separated")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="how many of the fixed ones")
    options = parser.parse_args()
    for size in parse_sizes(options.sizes):
        scenes = fixed_scenes(options.prompts, size)
        for name, recipe in RECIPES.items():
            with reference(recipe, options.files, size) as pipeline:
                pictures = draw(pipeline, scenes, recipe.request)
            right = accuracy(pictures, scenes, recipe.colours)
            print(
                f"{size} {name}: {right:.0%} right, {outlined(pictures, scenes):.0%} outlined",
                flush=True,
            )
        with reference(CONTROLLED, options.files, size) as pipeline:
            pictures = follow_edges(pipeline, scenes)
        print(f"{size} ControlNet: {in_place(pictures, scenes):.0%} in place", flush=True)


if __name__ == "__main__":
    main()
