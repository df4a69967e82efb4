"""Words for where a network parts from torch."""

import pytest

from validate.base import Agreement, Check, Measurement
from validate.judge import LayerJudge
from validate.layers.blame import parting, sharpest_drop

JUDGE = LayerJudge()
F16 = JUDGE.threshold("unet", "f16")


def check(name: str, psnr: float | None, gain: float = 1.0) -> Check:
    measurement = Measurement(0, 0, 8, 1.0, None, problem="8 of 8 values are NaN or Inf")
    if psnr is not None:
        measurement = Measurement(0, 0, 8, 1.0, Agreement(0.1, 0.999, psnr, psnr, gain))
    return Check(name, "Conv2d", "value", JUDGE.rule(measurement, F16), measurement)


def checks(*levels: float | None) -> list[Check]:
    return [check(f"layer{index}", level) for index, level in enumerate(levels)]


def test_the_first_below_its_floor_is_named_with_what_came_before() -> None:
    assert parting(checks(70, 65, 20, 18), F16) == (
        "parts from torch at layer2 (Conv2d): PSNR 20.0 dB is below the 30 dB needed; all 2 places "
        "before it agree (at least 65.0 dB)"
    )
    assert "nothing comes before it" in parting(checks(10, 10), F16)


def test_nan_is_named() -> None:
    assert "layer1 (Conv2d): 8 of 8 values are NaN" in parting(checks(70, None, None), F16)


def test_a_gain_is_enough() -> None:
    """One per cent of a weight is 40 dB, which rounding could explain, but has a direction."""
    words = parting([check("a", 70), check("b", 41, gain=1.01)], F16)
    assert "parts from torch at b (Conv2d): the output is 1.01 times the reference" in words


def test_where_all_pass_the_lowest_is_named_and_a_sharp_drop() -> None:
    assert parting(checks(70, 60, 55), F16) == (
        "no tensor inside is below its floor; the lowest is layer2, 55.0 dB"
    )
    assert parting(checks(70, 69, 40, 41), F16).endswith(
        "the sharpest drop is at layer2: 69.0 dB to 40.0 dB"
    )
    assert parting([], F16) == ""


@pytest.mark.parametrize(
    ("levels", "where"),
    [((300, 150, 148), None), ((70, 40, 39, 20), 1), ((70, None, 30), 2), ((50, 47, 44), None)],
)
def test_only_an_abrupt_drop_below_the_usual_counts(
    levels: tuple[float | None, ...], where: int | None
) -> None:
    assert sharpest_drop(checks(*levels), F16.expected_db) == where
