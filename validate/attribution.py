"""Attribution: which component costs how much of a picture or trajectory.

One component at a time is the artifact and all others are the reference; what then differs is that
component's doing. What another cast has drawn already is not drawn again: the decoder alone decodes
the reference's latent, and the text encoder alone costs no run of the UNet's artifact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from converter.sizes import Size
from converter.weights import Array
from validate.base import Check, Level, Measurement, Result, Verdict
from validate.metrics import measure, structural_similarity
from validate.sittings import REFERENCE, Cast, Sitting
from validate.studio import LATENTS_PORT, PICTURE_PORT, Studio


@dataclass(frozen=True)
class Share:
    """What a picture or latent is where one component alone is the artifact."""

    component: str
    precision: str
    measurement: Measurement


@dataclass(frozen=True)
class Attribution:
    """Which component costs how much, at one level, of one target at one size.

    `together` is with all artifacts. A share's *energy* is its squared error over the squared peak;
    errors of several causes add up by their energies as long as they are small.
    """

    target: str
    size: Size
    level: str
    about: str
    together: Measurement
    shares: Sequence[Share]

    def energy(self, share: Share) -> float | None:
        """10^(-PSNR / 10); None where there is no number."""
        agreement = share.measurement.agreement
        return None if agreement is None else float(10 ** (-agreement.psnr_db / 10))

    def cost_db(self, share: Share) -> float | None:
        """How many dB the whole would gain if this component were exact; None without numbers."""
        portion = self.portion(share)
        if portion is None or portion >= 1:
            return None
        return -10 * math.log10(1 - portion)

    def portion(self, share: Share) -> float | None:
        """What share of the energies of all components is this one's; None without numbers."""
        energies = [self.energy(s) for s in self.shares]
        mine = self.energy(share)
        known = [energy for energy in energies if energy is not None]
        if mine is None or len(known) < len(energies):
            return None
        return mine / sum(known)

    @property
    def by_cost(self) -> list[Share]:
        """The most expensive first; what is no number before all else."""

        def energy(share: Share) -> float:
            found = self.energy(share)
            return math.inf if found is None else found

        return sorted(self.shares, key=energy, reverse=True)

    @property
    def sentence(self) -> str:
        """Who is to blame, in words."""
        first = self.by_cost[0]
        agreement = first.measurement.agreement
        if agreement is None:
            return f"{first.component} {first.precision}: {first.measurement.problem}"
        portion = self.portion(first)
        assert portion is not None  # the worst has a number, so all have
        return (
            f"{first.component} {first.precision} makes {portion:.0%} of the error: alone it "
            f"leaves {agreement.psnr_db:.1f} dB"
        )


def needs_attribution(result: Result) -> bool:
    """Whether somebody is to blame for anything that was drawn."""
    worst = result.worst
    return worst.ruling.verdict is Verdict.FAIL and worst.measurement is not None


def attribute(
    sitting: Sitting, level: Level, worst: Check, studio: Studio | None
) -> Attribution | None:
    """Let each component alone be the artifact, and compare. None where that cannot be drawn.

    Without a studio only what is saved is compared.
    """
    assert worst.measurement is not None
    shares = []
    for name in sitting.artifacts:
        cast = sitting.playing(frozenset({name}), level)
        if not cast:
            continue
        if studio is not None and studio.draw(sitting, cast, level) is not None:
            return None
        if not sitting.store(cast, level).has(sitting.case):
            return None
        precision = sitting.artifacts[name].precision
        shares.append(Share(name, precision, compare(sitting, cast, level)))
    together = compare(sitting, sitting.everyone, level)
    about = sitting.request.sentence
    return Attribution(sitting.target, sitting.size, level, about, together, shares)


def compare(sitting: Sitting, cast: Cast, level: Level) -> Measurement:
    """Compare what a cast drew with what the reference drew: the last latent, or the picture.

    With SSIM, where pictures can be compared at all.
    """
    output, reference = shown(sitting, cast, level), shown(sitting, REFERENCE, level)
    measurement = measure(output, reference)
    if level is Level.TRAJECTORY or measurement.agreement is None:
        return measurement
    return replace(measurement, ssim=structural_similarity(output[0], reference[0]))


def shown(sitting: Sitting, cast: Cast, level: Level) -> Array:
    """The last latent, or the picture as a screen shows it, clipped to [-1, 1]; NaN stays."""
    saved = sitting.store(cast, level).load(sitting.case)
    if level is Level.TRAJECTORY:
        return saved[LATENTS_PORT][-1:]
    return np.clip(saved[PICTURE_PORT], -1, 1)
