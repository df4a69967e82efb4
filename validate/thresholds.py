"""What each precision must reach before an artifact is called good, and why.

Three guards stand beside every PSNR floor, because PSNR alone forgives a peaked reference: with
one value thirty times the rest, an output of all zeros reaches 30 dB. The cosine floor is the
one that belongs to the PSNR floor (an error that leaves the energy ratio s gives a cosine of
about 1 - 1 / (2 s)), the gain guard refuses "the right picture at another contrast", and NaN and
Inf are never allowed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from converter.errors import InputError
from targets.mnn.precisions import PRECISIONS
from validate.base import Threshold

_F32 = Threshold(
    "f32",
    psnr_db=80,
    expected_db=110,
    cosine=0.99999,
    gain=1e-4,
    max_abs_error=1e-4,
    reason="The same arithmetic in another order: fp32 graphs differ by about 2e-6 of the signal "
    "(over 110 dB); 80 dB and 1e-4 leave room for other kernels and for no real error.",
)
_F32_VAE = replace(
    _F32,
    max_abs_error=3e-4,
    reason=_F32.reason + " 3e-4 for the VAE: its widest sums run over half a million pixels in "
    "every group norm; 3e-4 is a twenty-fifth of one step of an 8-bit picture.",
)
_F16 = Threshold(
    "f16",
    psnr_db=35,
    expected_db=45,
    cosine=0.995,
    gain=0.02,
    max_abs_error=None,
    reason="fp16 keeps 11 bits of a value: 51 to 61 dB were measured on several chips. 35 dB is an "
    "error of 1.8 % of the peak: an overflow or a wrong fusion, more than rounding explains.",
)
_BF16 = Threshold(
    "bf16",
    psnr_db=30,
    expected_db=38,
    cosine=0.99,
    gain=0.02,
    max_abs_error=None,
    reason="bf16 keeps 8 bits of a value, 18 dB less than fp16: 34 to 39 dB were measured. 30 dB "
    "is an error of 3 % of the peak, more than rounding explains.",
)
_W8 = Threshold(
    "w8",
    psnr_db=35,
    expected_db=50,
    cosine=0.995,
    gain=0.02,
    max_abs_error=None,
    reason="8-bit weights with a scale for every 64 cost little beside fp16 activations: 42 to 54 "
    "dB were measured on several chips, 52 to 72 dB with a UNet that draws: the fp16 floor holds.",
)
_W4 = Threshold(
    "w4",
    psnr_db=28,
    expected_db=35,
    cosine=0.98,
    gain=0.05,
    max_abs_error=None,
    reason="4-bit weights: 35.6 dB was measured. 28 dB is an error of 4 % of the peak, more than "
    "twice what rounding to 4 bits explains.",
)
_WEIGHTS_8 = replace(
    _W8,
    expected_db=45,
    reason="Weights of convolutions and linear layers in 8 bits, activations in fp32: 47 to 61 dB "
    "were measured with a model that draws, 43 to 53 with random weights. 35 dB is an error of 1.8 "
    "% of the peak, more than twice what rounding weights to 8 bits explains.",
)
_ALL_8 = replace(
    _WEIGHTS_8,
    psnr_db=32,
    expected_db=42,
    reason="As with 8-bit weights alone, and activations brought to 8 bits as they come: 45 to 56 "
    "dB were measured with a model that draws, 42 to 44 with random weights at full size. 32 dB is "
    "an error of 2.5 % of the peak, more than twice what rounding explains.",
)
_WEIGHTS_4 = replace(
    _W4,
    psnr_db=24,
    expected_db=28,
    cosine=0.965,
    gain=0.07,
    reason="Weights of convolutions too in 4 bits, where other 4-bit kinds keep those in half "
    "precision: 23 to 39 dB were measured, by component, with a model that draws what it is told, "
    "but at another place. 24 dB is an error of 6 % of the peak; with less, a channel could be "
    "missing and nobody would see. What falls short of it has HQQ or smaller blocks left to try.",
)
_INT8 = replace(
    _W4,
    precision="int8",
    expected_db=33,
    reason="8-bit weights and activations; the range of the activations is a guess from "
    "calibration. 28 dB, an error of 4 % of the peak, is the floor of 4-bit weights.",
)
_INT8_MIXED = replace(
    _INT8,
    precision="int8-mixed",
    expected_db=45,
    reason="Most convolutions and products with weights in 8 bits, the rest in fp16: 49 dB and "
    "more were measured with a UNet that draws as without. " + _INT8.reason,
)


def _mnn() -> Iterator[Threshold]:
    """One row for every way in which MNN quantises."""
    for precision in PRECISIONS.values():
        if precision.quantised:
            row = _WEIGHTS_4
            if precision.bits == 8:
                row = _ALL_8 if precision.dynamic else _WEIGHTS_8
            yield replace(row, precision=precision.name)


THRESHOLDS: dict[str, Threshold] = {
    "f32": _F32,
    "f16": _F16,
    "bf16": _BF16,
    "w8f16": replace(_W8, precision="w8f16"),
    "w8bf16": replace(
        _BF16,
        precision="w8bf16",
        reason="8-bit weights cost less than bf16 activations do, so the bf16 floor holds. "
        + _BF16.reason,
    ),
    "w4f16": replace(_W4, precision="w4f16"),
    "w4bf16": replace(_W4, precision="w4bf16"),
    "int8": _INT8,
    "int8-mixed": _INT8_MIXED,
    **{row.precision: row for row in _mnn()},
}


def threshold_for(component: str, precision: str) -> Threshold:
    """The row of the table; raises InputError listing the precisions that have one."""
    if precision not in THRESHOLDS:
        raise InputError(
            f"no thresholds for precision {precision!r}: there are some for "
            f"{', '.join(THRESHOLDS)}; add a row with its reason to validate/thresholds.py"
        )
    if precision == "f32" and component.startswith("vae"):
        return _F32_VAE
    return THRESHOLDS[precision]


PICTURE_DB = {
    "f32": (70.0, 110.0),
    "f16": (28.0, 42.0),
    "bf16": (25.0, 40.0),
    "int8-mixed": (25.0, 38.0),
    **{p.name: (25.0, 31.0) for p in PRECISIONS.values() if p.bits == 8},
}
"""PSNR needed and usual of whole pictures; a precision that is not listed gets that of bf16."""


def _of_a_drawing(
    precision: str, table: Mapping[str, tuple[float, float]], reason: str
) -> Threshold:
    """PSNR needed and usual by precision; the rest is alike for all that a sampler gives."""
    floor, usual = table.get(precision, table["bf16"])
    return Threshold(
        precision,
        psnr_db=floor,
        expected_db=usual,
        cosine=0.0,
        gain=0.2,
        max_abs_error=None,
        reason=reason,
    )


def picture_threshold(precision: str) -> Threshold:
    """What a picture must reach that artifacts of this precision drew."""
    return _of_a_drawing(
        precision,
        PICTURE_DB,
        "Sampling feeds every step's error to the next, so a picture differs more than any "
        "component's output. Measured over 4 steps: 119 dB in fp32, 49 dB with the UNet in fp16 "
        "and the VAE in bf16, 28 dB and more (half of them 39) with the UNet in int8-mixed. A "
        "circle shifted by a pixel agrees to 16 dB, in another colour to 11 dB or less. All in "
        "INT8, and weights in 4 bits, have no floor of their own: their circle was a pixel or more "
        "away, so a picture in them fails, and whether the model still draws what it is told has "
        "to be looked at.",
    )


TRAJECTORY_DB = {"f32": (70.0, 110.0), "f16": (28.0, 42.0), "bf16": (25.0, 40.0)}
"""Likewise of the latent after every step."""


def trajectory_threshold(precision: str) -> Threshold:
    """What the latent of every step must reach that artifacts of this precision gave."""
    return _of_a_drawing(
        precision,
        TRAJECTORY_DB,
        "As for pictures, whose decoder changes no more than it is given: every step's "
        "error is fed to the next.",
    )


LAYERS = {
    "f32": (80.0, 1e-4),
    "f16": (30.0, 6e-3),
    "w8f16": (30.0, 2e-2),
    "bf16": (10.0, 0.1),
    "w8bf16": (10.0, 0.1),
}
"""PSNR needed and largest |gain - 1| of a tensor inside; a precision that is not listed gets
`LAYERS_OF_FEW_BITS`. Measured on the miniature: f16 from 38 dB and up to 3.3e-3; bf16 from 19 dB,
where the embedding of a timestep ends that 8 bits do not hold, and up to 0.055."""
LAYERS_OF_FEW_BITS = (10.0, 0.3)


def layer_threshold(component: str, precision: str) -> Threshold:
    """What a tensor inside a network must reach: only what explains a wrong output is below."""
    psnr_db, gain = LAYERS.get(precision, LAYERS_OF_FEW_BITS)
    return replace(
        threshold_for(component, precision),
        psnr_db=psnr_db,
        cosine=-1.0,
        gain=gain,
        max_abs_error=None,
        reason="A tensor inside may be worse than the output: later layers forgive much. Rounding "
        "has no direction, so a gain is more telling there: a weight that is off by one per cent "
        "shows in f16.",
    )


RECOGNISED = 0.5
"""Share of its pictures in which the reference must show what was asked for: a model that is worth
judging by a recogniser reaches it (the miniature: 98 %), a broken sampling loop does not."""

UNRECOGNISED = 0.25
"""Share of the pictures that artifacts may lose against the reference: a shape at the edge of what
a recogniser calls by its name falls off by rounding alone."""
