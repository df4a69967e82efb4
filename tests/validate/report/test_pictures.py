"""Pictures and plots: any shape, any damage, and PNG that another reader understands."""

import struct
import zlib

import numpy as np
import pytest

from converter.weights import Array
from runtime.png import data_uri, png
from validate.report.pictures import LARGEST, side_by_side
from validate.report.plots import histogram, scatter

RNG = np.random.default_rng(3)


def decode(data: bytes) -> Array:
    """Read back the one kind of PNG that is written."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, {}
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        chunks[kind] = content
        place += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_png_holds_the_pixels() -> None:
    pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (decode(png(pixels)) == pixels).all()
    assert data_uri(pixels).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 96), (2, 3, 500, 900), (1, 4, 8, 8), (1, 8, 9, 7), (1, 77, 768), (1, 768)]
)
def test_every_shape_gives_three_pictures(shape: tuple[int, ...]) -> None:
    reference = RNG.standard_normal(shape, np.float32)
    for output in (
        reference,
        reference * 1.01,
        np.full_like(reference, np.nan),
        reference * np.inf,
    ):
        pictures = side_by_side(output, reference)
        assert [picture.title.split(",")[0].split()[0] for picture in pictures] == [
            "reference",
            "artifact",
            "difference",
        ]


def test_large_pictures_shrink_in_proportion() -> None:
    from base64 import b64decode

    picture = side_by_side(*[np.zeros((1, 3, 576, 1024), np.float32)] * 2)[0]
    height, width, _ = decode(b64decode(picture.address.partition(",")[2])).shape
    assert (height, width) == (192, 341)
    assert width <= LARGEST


def test_plots_are_left_out_where_nothing_can_be_drawn() -> None:
    reference = RNG.standard_normal((1, 4, 8, 8), np.float32)
    for output, against in (
        (np.full_like(reference, np.nan), reference),
        (reference[:, :2], reference),
        (reference, reference * 0),
    ):
        assert histogram(output, against, 35) is None
        assert scatter(output, against) is None


def test_a_right_artifact_lies_on_the_diagonal() -> None:
    reference = RNG.standard_normal((1, 4, 8, 8), np.float32)
    drawn = scatter(reference, reference, samples=20)
    assert drawn is not None
    points = [point.split(",") for point in drawn.points.replace("h0", "").split("M")[1:]]
    for x, y in points:
        assert float(x) / 360 + float(y) / 190 == pytest.approx(1, abs=2e-3)
