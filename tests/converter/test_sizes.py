import pytest

from converter.errors import InputError
from converter.sizes import Size, check_size, parse_sizes


def test_sizes_are_width_by_height_without_duplicates() -> None:
    assert parse_sizes("512x512, 768X512,512x512") == (Size(512, 512), Size(768, 512))
    assert str(Size(768, 512)) == "768x512"


@pytest.mark.parametrize("text", ["", ",", "512", "512x", "x512", "512*512", "-8x8", "512x512x3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_sizes(text)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [(Size(500, 512), "512x512"), (Size(1, 1), "64x64"), (Size(640, 970), "640x960"),
     (Size(0, 64), "64x64"), (Size(99999, 64), "8192x64")],
)  # fmt: skip
def test_a_size_that_does_not_fit_names_the_nearest_one(size: Size, nearest: str) -> None:
    with pytest.raises(InputError, match=nearest):
        check_size(size, 64)


def test_a_size_that_fits_passes() -> None:
    check_size(Size(640, 960), 64)
    check_size(Size(520, 8), 8)
