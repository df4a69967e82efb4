"""How far an output is from the reference, with every definition beside its formula.

With r the reference, x the output, e = x - r, and sums over all N elements in float64:

    max abs error = max |e|
    cosine        = sum(x r) / (|x| |r|),   |.| the Euclidean norm; 0 when x is all zeros
    PSNR  [dB]    = 20 log10( max |r| / RMSE ),   RMSE = sqrt( sum(e^2) / N )
    SQNR  [dB]    = 20 log10( |r| / |e| )
    gain          = sum(x r) / sum(r^2),   the least-squares g in x = g r

PSNR compares with the largest value, as a picture is looked at; SQNR with the signal's energy,
so that one outlier in the reference cannot hide a wrong rest. Gain tells "scaled" from "noisy".

Pictures also get SSIM, the structural similarity of Wang et al. (IEEE Trans. Image Processing
13(4), 2004): per colour, with Gaussian windows of 11 x 11 and deviation 1.5, L the range of values,
C1 = (0.01 L)^2 and C2 = (0.03 L)^2, averaged over the places that a whole window fits in,

    SSIM = (2 mx my + C1) (2 sxy + C2) / ((mx^2 + my^2 + C1) (sx^2 + sy^2 + C2))
"""

import math

import numpy as np

from converter.weights import Array
from validate.base import Agreement, Measurement

EXACT_DB = 300.0
"""Reported when there is no error at all: the ratio is infinite, and JSON has no infinity."""


def measure(output: Array | None, reference: Array) -> Measurement:
    """Compare two arrays; where that makes no sense, say why and give no numbers at all.

    One NaN is enough to give none: a cosine over the rest would look good and mean nothing.
    """
    if output is None:
        return Measurement(0, 0, 0, 0.0, agreement=None, problem="the artifact has no such output")
    nan, inf = int(np.isnan(output).sum()), int(np.isinf(output).sum())
    finite = np.isfinite(reference)
    peak = float(np.abs(reference[finite]).max()) if finite.any() else 0.0
    problem = _problem(output, reference, nan + inf, peak)
    if problem is not None:
        return Measurement(nan, inf, output.size, peak, agreement=None, problem=problem)
    r = reference.astype(np.float64).ravel()
    x = output.astype(np.float64).ravel()
    error = x - r
    signal, noise = float(np.linalg.norm(r)), float(np.linalg.norm(error))
    length = float(np.linalg.norm(x))
    product = float(x @ r)
    agreement = Agreement(
        max_abs_error=float(np.abs(error).max()),
        cosine=product / (length * signal) if length else 0.0,
        psnr_db=decibels(peak, noise / math.sqrt(error.size)),
        sqnr_db=decibels(signal, noise),
        gain=product / signal**2,
    )
    return Measurement(nan, inf, output.size, peak, agreement)


PICTURE_RANGE = 2.0
"""Of values in [-1, 1]."""

_OFFSETS = np.arange(-5, 6)
_WINDOW = np.exp(-(_OFFSETS**2) / (2 * 1.5**2)) / np.exp(-(_OFFSETS**2) / (2 * 1.5**2)).sum()


def structural_similarity(x: Array, y: Array) -> float:
    """SSIM of two pictures [3, H, W] in [-1, 1]: 1 where they are equal.

    Of pictures with a side below 11 pixels, the one of the whole as a single window.
    """
    a, b = x.astype(np.float64), y.astype(np.float64)
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a = _windowed(a * a) - mean_a**2
    var_b = _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * PICTURE_RANGE) ** 2, (0.03 * PICTURE_RANGE) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float((luminance * structure).mean())


def _windowed(planes: Array) -> Array:
    """The mean under the window at every place that it fits in."""
    if min(planes.shape[1:]) < len(_WINDOW):
        return np.asarray(planes.mean(axis=(1, 2)))
    for axis in (1, 2):
        views = np.lib.stride_tricks.sliding_window_view(planes, len(_WINDOW), axis=axis)
        planes = views @ _WINDOW
    return planes


def decibels(signal: float, noise: float) -> float:
    """Return 20 log10(signal / noise), at most `EXACT_DB`."""
    if noise == 0:
        return EXACT_DB
    return min(EXACT_DB, 20 * math.log10(signal / noise))


def _problem(output: Array, reference: Array, not_finite: int, peak: float) -> str | None:
    """Why the two cannot be compared, or None when they can."""
    if output.shape != reference.shape:
        return (
            f"the output's shape is {list(output.shape)} where {list(reference.shape)} was expected"
        )
    if output.size == 0:
        return "the output is empty: there is nothing to compare"
    if not np.isfinite(reference).all():
        return "the fp32 reference itself holds NaN or Inf: the weights are broken"
    if not_finite:
        return f"{not_finite} of {output.size} values are NaN or Inf"
    if peak == 0:
        return "the fp32 reference is all zeros: it can prove nothing"
    return None
