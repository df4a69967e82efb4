"""From a measurement to a verdict and the sentence that explains it."""

from validate.base import PICTURE_LEVEL, Agreement, Judge, Measurement, Ruling, Threshold, Verdict
from validate.thresholds import picture_threshold, threshold_for


class ComponentJudge(Judge):
    """Compares one component's output with the reference's, everything else equal."""

    level = "component"

    def threshold(self, component: str, precision: str) -> Threshold:
        """The row of `validate.thresholds`."""
        return threshold_for(component, precision)

    def rule(self, measurement: Measurement, threshold: Threshold) -> Ruling:
        """Name every limit that is broken; otherwise say by how much it passed."""
        agreement = measurement.agreement
        if agreement is None:
            return Ruling(Verdict.FAIL, measurement.problem or "nothing was measured")
        broken = _broken(agreement, threshold, measurement.peak)
        if measurement.nan or measurement.inf:
            broken.append(f"{measurement.nan} NaN and {measurement.inf} Inf")
        if broken:
            return Ruling(Verdict.FAIL, "; ".join(broken))
        sentence = f"PSNR {agreement.psnr_db:.1f} dB, {threshold.psnr_db:g} dB needed"
        if agreement.psnr_db < threshold.expected_db:
            sentence += f", but {threshold.expected_db:g} dB is usual for {threshold.precision}"
        return Ruling(Verdict.PASS, sentence)


class PictureJudge(ComponentJudge):
    """Compares the pictures that all components draw together."""

    level = PICTURE_LEVEL

    def threshold(self, component: str, precision: str) -> Threshold:
        """The row for pictures, whatever the component."""
        del component
        return picture_threshold(precision)


def _broken(a: Agreement, t: Threshold, peak: float) -> list[str]:
    """Every limit that is broken, in words.

    Written as "not within" rather than "outside", so that a number that is NaN breaks its limit.
    """
    broken = []
    if not a.psnr_db >= t.psnr_db:
        broken.append(f"PSNR {a.psnr_db:.1f} dB is below the {t.psnr_db:g} dB needed")
    if not abs(a.gain - 1) <= t.gain:
        broken.append(f"the output is {a.gain:.4g} times the reference")
    if not a.cosine >= t.cosine:
        broken.append(f"cosine {a.cosine:.6f} is below {t.cosine:g}")
    allowed = t.allowed_error(peak)
    if allowed is not None and not a.max_abs_error <= allowed:
        broken.append(
            f"the largest error {a.max_abs_error:.2e} is above {allowed:.2e} "
            f"(reference peak {peak:.3g})"
        )
    return broken
