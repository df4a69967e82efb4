import numpy as np
import pytest

from converter.sizes import Size
from examples.mini.pictures import DAY, DUSK, SHAPES, Scene, draw, edges, mask, random_scene
from examples.mini.recognise import is_outline, overlap_with, recognise

SIZES = [Size(64, 64), Size(128, 64), Size(64, 128), Size(128, 128)]


def scenes(count: int, size: Size) -> list[Scene]:
    rng = np.random.default_rng(7)
    return [random_scene(rng, size) for _ in range(count)]


def test_captions() -> None:
    scene = Scene("circle", "orange", "blue", radius=0.75)
    assert scene.caption() == "an orange circle on a blue background"
    assert scene.caption(size_word=True) == "a large orange circle on a blue background"
    middling = Scene("star", "red", "orange", radius=0.6)
    assert middling.caption(size_word=True) == "a red star on an orange background"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_shapes_lie_inside_the_picture(size: Size) -> None:
    for scene in scenes(50, size):
        covered = mask(scene, size)
        assert covered.shape == (size.height, size.width)
        assert 0.02 < covered.mean() < 0.7
        border = np.concatenate([covered[0], covered[-1], covered[:, 0], covered[:, -1]])
        assert border.max() < 0.6


def test_edges_surround_the_shape() -> None:
    scene, size = Scene("square", "red", "white"), Size(64, 64)
    hint = edges(scene, size)
    assert hint.shape == (3, 64, 64) and hint.dtype == np.float32
    assert hint.max() == 1 and hint.min() == 0 and 0.02 < hint.mean() < 0.15
    assert hint[:, 32, 32].max() == 0


@pytest.mark.parametrize("outline", [False, True])
@pytest.mark.parametrize("size", SIZES[:2], ids=str)
def test_what_is_drawn_is_recognised(size: Size, outline: bool) -> None:
    for palette in (DAY, DUSK):
        for scene in scenes(20, size):
            seen = recognise(draw(scene, size, palette, outline=outline), palette)
            assert seen.shows(scene) and seen.outlined == outline
            assert is_outline(draw(scene, size, palette, outline=outline), scene.shape) == outline


def test_a_little_noise_does_not_matter() -> None:
    rng, size = np.random.default_rng(0), Size(64, 64)
    right = [
        recognise(draw(scene, size) + 0.05 * rng.standard_normal((3, 64, 64))).shows(scene)
        for scene in scenes(30, size)
    ]
    assert np.mean(right) >= 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_is_taken_for_another(shape: str) -> None:
    seen = recognise(draw(Scene(shape, "red", "white"), Size(64, 64)))
    assert (seen.shape, seen.colour, seen.background) == (shape, "red", "white")
    assert seen.overlap > 0.9


@pytest.mark.parametrize(
    "picture",
    [
        np.full((3, 64, 64), -1.0),
        np.zeros((3, 64, 64)),
        np.full((3, 64, 64), np.nan),
        np.random.default_rng(1).standard_normal((3, 64, 64)),
        np.linspace(-1, 1, 64) * np.ones((3, 64, 64)),
        np.repeat(np.repeat(np.random.default_rng(2).uniform(-1, 1, (3, 8, 8)), 8, 1), 8, 2),
    ],
    ids=["black", "grey", "nan", "noise", "gradient", "patches"],
)
def test_nothing_is_seen_in_a_broken_picture(picture: np.ndarray) -> None:
    assert recognise(picture).shape == "nothing"


def test_the_place_counts_where_edges_were_given() -> None:
    size = Size(64, 64)
    here = Scene("circle", "red", "white", x=0.4, y=0.4, radius=0.5)
    moved = Scene("circle", "red", "white", x=0.6, y=0.6, radius=0.5)
    other = Scene("star", "red", "white", x=0.4, y=0.4, radius=0.5)
    assert overlap_with(draw(here, size), here) > 0.95
    assert overlap_with(draw(moved, size), here) < 0.5
    assert overlap_with(draw(other, size), here) < 0.6
