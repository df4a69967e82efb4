"""The trajectory level: the latent after every step, artifacts beside the reference.

Both start from the same noise and run the same loop, so the latents differ by the artifacts alone;
every step's error is fed to the next.
"""

from collections.abc import Sequence

from validate.base import Check, Judge, Level, Ruling, Threshold
from validate.metrics import measure
from validate.sittings import REFERENCE, Sitting
from validate.studio import LATENTS_PORT, TIMESTEPS_PORT


def step_checks(
    sitting: Sitting, judge: Judge, threshold: Threshold, missing: Ruling
) -> list[Check]:
    """One check per step; a single one with the ruling `missing` where nothing is saved."""
    request, level = sitting.request, Level.TRAJECTORY
    mine, reference = (sitting.store(cast, level) for cast in (sitting.everyone, REFERENCE))
    if not (mine.has(sitting.case) and reference.has(sitting.case)):
        return [Check(f"{request.steps} steps", request.sentence, LATENTS_PORT, missing)]
    drawn, saved = mine.load(sitting.case), reference.load(sitting.case)
    times = saved[TIMESTEPS_PORT]
    checks = []
    pairs = zip(drawn[LATENTS_PORT], saved[LATENTS_PORT], strict=True)
    for index, (output, expected) in enumerate(pairs):
        measurement = measure(output[None], expected[None])
        checks.append(
            Check(
                case=f"step {index + 1} (timestep {times[index]:g})",
                about=request.sentence,
                output=LATENTS_PORT,
                ruling=judge.rule(measurement, threshold),
                measurement=measurement,
                saved=mine.path(sitting.case),
                reference=reference.path(sitting.case),
                position=index,
            )
        )
    return checks


def parting(checks: Sequence[Check], floor_db: float) -> str:
    """At which step they part, in words."""
    placed = [check for check in checks if check.position is not None]
    parted = next((check for check in placed if not _agrees(check, floor_db)), None)
    if not placed:
        return ""
    if parted is None:
        least = min(check.psnr_db or 0.0 for check in placed)
        return f"they never part: at least {least:.1f} dB over {len(placed)} steps"
    index = placed.index(parted)
    found = "no number" if parted.psnr_db is None else f"{parted.psnr_db:.1f} dB"
    before = "" if index == 0 else f", {placed[index - 1].psnr_db:.1f} dB a step before"
    return f"they part at {parted.case}: {found} where {floor_db:g} dB are needed{before}"


def _agrees(check: Check, floor_db: float) -> bool:
    return check.psnr_db is not None and check.psnr_db >= floor_db
