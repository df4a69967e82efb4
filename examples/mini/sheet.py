"""The contact sheet of the README: every prompt as base, LoRAs, ControlNet and second base draw it.

python -m examples.mini.sheet examples/mini/contact-sheet.png
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from converter.weights import Array
from examples.mini.pictures import Scene, edges
from examples.mini.score import (
    CONTROLLED,
    FILES,
    GUIDED,
    RECIPES,
    SIZES,
    SQUARE,
    draw,
    follow_edges,
    reference,
)
from runtime.sampling import to_pixels

SCENES = (
    Scene("circle", "red", "blue", x=0.38, y=0.40, radius=0.55),
    Scene("star", "yellow", "black", x=0.55, y=0.5, radius=0.75),
    Scene("cross", "white", "green", x=0.5, y=0.6, radius=0.6),
    Scene("ring", "black", "orange", x=0.6, y=0.42, radius=0.7),
    Scene("triangle", "purple", "white", x=0.42, y=0.55, radius=0.65),
    Scene("square", "green", "yellow", x=0.6, y=0.6, radius=0.5),
)
SCALE = 2
GAP = 10
WORDS = 190
"""Width of the column that holds the prompts, in pixels."""


def main() -> None:
    """Draw everything and write the sheet."""
    parser = argparse.ArgumentParser(description="Draw the miniature's contact sheet.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--files", type=Path, default=FILES, help="where the five files are")
    options = parser.parse_args()
    columns: dict[str, list[Array]] = {}
    for name, recipe in RECIPES.items():
        with reference(recipe, options.files) as pipeline:
            columns[name] = draw(pipeline, SCENES, recipe.request)
    columns["edges"] = [edges(scene, SQUARE) * 2 - 1 for scene in SCENES]
    with reference(CONTROLLED, options.files) as pipeline:
        columns["ControlNet"] = follow_edges(pipeline, SCENES)
    sizes = []
    for size in SIZES[1:]:
        with reference(RECIPES["base, 20 steps"], options.files, size) as pipeline:
            request = replace(GUIDED, prompt=SCENES[0].caption(), seed=1)
            sizes.append(pipeline.draw(request).picture)
    sheet(columns, sizes).save(options.output)


def sheet(columns: dict[str, list[Array]], sizes: list[Array]) -> Image.Image:
    """Lay out one row a prompt and one column a recipe, and a last row with the other sizes."""
    cell = SQUARE.width * SCALE + GAP
    width = WORDS + cell * len(columns) + GAP
    height = 30 + cell * len(SCENES) + 2 * cell + GAP
    image = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for column, (name, pictures) in enumerate(columns.items()):
        left = WORDS + column * cell
        pen.text((left, 8), name, "black", font)
        for row, picture in enumerate(pictures):
            image.paste(enlarged(picture), (left, 30 + row * cell))
    for row, scene in enumerate(SCENES):
        words = scene.caption().replace(" on ", "\non ")
        pen.text((GAP, 30 + row * cell + 40), words, "black", font)
    top, left = 30 + len(SCENES) * cell, WORDS
    words = "\n".join(["the first prompt at", *(str(size) for size in SIZES[1:])])
    pen.text((GAP, top + 40), words, "black", font)
    for picture in sizes:
        image.paste(enlarged(picture), (left, top))
        left += picture.shape[2] * SCALE + GAP
    return image


def enlarged(picture: Array) -> Image.Image:
    """Turn a picture into an image, every pixel `SCALE` wide."""
    pixels = np.repeat(np.repeat(to_pixels(picture), SCALE, axis=0), SCALE, axis=1)
    return Image.fromarray(pixels)


if __name__ == "__main__":
    main()
