from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.errors import InputError
from converter.sizes import Size
from runtime.hints import HintFile
from runtime.sampling import PictureRequest


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Twice as wide as high; the middle third is red, what is left and right of it blue."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, :20, 2] = pixels[:, 40:, 2] = pixels[:, 20:40, 0] = 255
    path = tmp_path / "a:b=c.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("before", "after", "component", "scale"),
    [
        ("", "", "controlnet", 1.0),
        ("", ":0.5", "controlnet", 0.5),
        ("controlnet_2=", "", "controlnet_2", 1.0),
        ("controlnet_2=", ":-1", "controlnet_2", -1.0),
    ],
)
def test_a_hint_is_read_and_written_back(
    before: str, after: str, component: str, scale: float, picture: Path
) -> None:
    hint = HintFile.parse(f"{before}{picture}{after}")
    assert hint == HintFile(picture, component, scale)
    assert HintFile.parse(str(hint)) == hint


@pytest.mark.parametrize(
    ("scale", "message"),
    [("much", "'much' is no number: write FILE.png:0.8"), ("nan", "'nan' is no number")],
)
def test_what_is_no_scale_is_refused(scale: str, message: str, picture: Path) -> None:
    with pytest.raises(InputError, match=message):
        HintFile.parse(f"{picture}:{scale}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*lost.png: check the path"):
        HintFile.parse(f"controlnet={tmp_path}/lost.png:0.5")


def test_a_picture_covers_the_size_and_keeps_its_shape(picture: Path) -> None:
    hint = HintFile(picture, scale=0.5).read(Size(32, 32))
    assert hint.picture.shape == (3, 32, 32) and hint.picture.dtype == np.float32
    assert (hint.picture[0] > 0.9).mean() > 0.9 and hint.picture[2].max() < 0.5
    assert hint.scale == 0.5


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("no picture")
    with pytest.raises(InputError, match=r"no picture that can be read .* give a PNG or JPEG"):
        HintFile.parse(str(path)).read(Size(8, 8))


def test_a_drawing_depends_on_what_is_in_the_picture(picture: Path) -> None:
    request = PictureRequest("a cat", hints=(HintFile(picture),))
    before = request.identity()
    assert before != PictureRequest("a cat").identity()
    assert request.command()[-2:] == ["--hint", f"controlnet={picture}:1"]
    Image.new("RGB", (8, 8)).save(picture)
    assert request.identity() != before
