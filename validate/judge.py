"""From a measurement to a verdict and the sentence that explains it."""

from collections.abc import Mapping, Sequence

from validate.base import Agreement, Judge, Level, Measurement, Ruling, Threshold, Verdict
from validate.overrides import Override, overridden
from validate.thresholds import (
    layer_threshold,
    picture_threshold,
    threshold_for,
    trajectory_threshold,
)


class ComponentJudge(Judge):
    """Compares one component's output with the reference's, everything else equal."""

    level = Level.COMPONENT

    def __init__(self, overrides: Sequence[Override] = ()) -> None:
        self._overrides = overrides

    def threshold(self, component: str, precision: str) -> Threshold:
        """The usual row, with what a recipe puts in its place."""
        usual = self.usual(component, precision)
        return overridden(usual, self._overrides, self.level, component)

    def usual(self, component: str, precision: str) -> Threshold:
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

    level = Level.PICTURE

    def usual(self, component: str, precision: str) -> Threshold:
        """The row for pictures, whatever the component."""
        del component
        return picture_threshold(precision)


class TrajectoryJudge(ComponentJudge):
    """Compares the latents that all components but the decoder come to together."""

    level = Level.TRAJECTORY

    def usual(self, component: str, precision: str) -> Threshold:
        """The row for latents, whatever the component."""
        del component
        return trajectory_threshold(precision)


class LayerJudge(ComponentJudge):
    """Compares a tensor inside a network with the output of the torch module that it is."""

    level = Level.LAYER

    def usual(self, component: str, precision: str) -> Threshold:
        """The row for what lies inside the component."""
        return layer_threshold(component, precision)


def judges(overrides: Sequence[Override] = ()) -> Mapping[Level, ComponentJudge]:
    """The judge of every level; exports are judged as components in fp32."""
    return {
        Level.EXPORT: ComponentJudge(overrides),
        Level.COMPONENT: ComponentJudge(overrides),
        Level.LAYER: LayerJudge(overrides),
        Level.TRAJECTORY: TrajectoryJudge(overrides),
        Level.PICTURE: PictureJudge(overrides),
    }


def _broken(a: Agreement, t: Threshold, peak: float) -> list[str]:
    """Every limit that is broken, in words.

    Written as "not within" rather than "outside", so that a number that is NaN breaks its limit.
    """
    broken = []
    if not a.psnr_db >= t.psnr_db:
        broken.append(f"PSNR {a.psnr_db:.1f} dB is below the {t.psnr_db:g} dB needed")
    if t.gain is not None and not abs(a.gain - 1) <= t.gain:
        broken.append(f"the output is {a.gain:.6g} times the reference")
    if not a.cosine >= t.cosine:
        broken.append(f"cosine {a.cosine:.6f} is below {t.cosine:g}")
    allowed = t.allowed_error(peak)
    if allowed is not None and not a.max_abs_error <= allowed:
        broken.append(
            f"the largest error {a.max_abs_error:.2e} is above {allowed:.2e} "
            f"(reference peak {peak:.3g})"
        )
    return broken
