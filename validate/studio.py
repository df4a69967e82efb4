"""The running step of trajectories and pictures: open what draws, and save what comes out.

Nothing is judged here. The sampling loop and the decoding of its last latent are two steps with a
file between them, so that a trajectory needs no decoder, and another decoder no sampling.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from converter.bundle import Bundle
from converter.progress import Event
from runtime.latency import runs_per_picture
from runtime.network import Network
from runtime.staging import (
    OpenReference,
    artifact_network,
    open_networks,
    reference_network,
)
from targets.base import ToolchainError
from targets.manifest import Manifest
from validate.base import Level, Ruling, Verdict
from validate.run import Bench, too_slow
from validate.sittings import DECODER, REFERENCE, Cast, Sitting

PICTURE_PORT, LATENTS_PORT, TIMESTEPS_PORT = "picture", "latents", "timesteps"
"""What the arrays are saved as: a picture [1, 3, H, W]; of all steps the latents [S, 4, h, w] and
timesteps [S]."""


@dataclass(frozen=True)
class Studio:
    """Where sittings are drawn. `opener` opens the reference."""

    manifest: Manifest
    bundle: Bundle
    bench: Bench
    opener: OpenReference

    def draw(self, sitting: Sitting, cast: Cast, level: Level) -> Ruling | None:
        """Draw as far as the level asks, unless it is saved, and the reference with it.

        Returns the ruling on what could not be drawn; None when all of it is there.
        """
        hindrance = self._draw(sitting, cast, level)
        if hindrance is None:
            self._draw(sitting, REFERENCE, level)
        return hindrance

    def _draw(self, sitting: Sitting, cast: Cast, level: Level) -> Ruling | None:
        if sitting.store(cast, level).has(sitting.case):
            return None
        hindrance = self._hindrance(sitting, cast, level)
        stage = f"draw {sitting.label}"
        if hindrance is not None:
            self.bench.progress(Event(stage, 1, f"{level} {sitting.label}: {hindrance.sentence}"))
            return hindrance
        try:
            self._sample(sitting, cast)
            if level is Level.PICTURE:
                self._decode(sitting, cast)
        except ToolchainError as e:
            return Ruling(Verdict.FAIL, f"it could not be drawn: {e}")
        if cast:
            self.bench.progress(Event(stage, 1))
        return None

    def _sample(self, sitting: Sitting, cast: Cast) -> None:
        store = sitting.store(cast, Level.TRAJECTORY)
        if store.has(sitting.case):
            return
        steps = sitting.request.steps

        def on_step(done: int) -> None:
            if cast:
                self.bench.progress(Event(f"draw {sitting.label}", done / (steps + 1)))

        openers = self._openers(sitting, cast, sitting.everyone - {DECODER})
        with open_networks(self.bundle, sitting.size, openers) as pipeline:
            started = time.monotonic()
            latents = pipeline.sample(sitting.request, on_step=on_step)
            seconds = time.monotonic() - started
            timesteps = np.array(pipeline.scheduler(sitting.request).timesteps)
        arrays = {LATENTS_PORT: np.concatenate(latents), TIMESTEPS_PORT: timesteps}
        store.save(sitting.case, arrays, seconds)

    def _decode(self, sitting: Sitting, cast: Cast) -> None:
        sampled = sitting.store(cast, Level.TRAJECTORY)
        latent = sampled.load(sitting.case)[LATENTS_PORT][-1:]
        openers = self._openers(sitting, cast, frozenset({DECODER}))
        with open_networks(self.bundle, sitting.size, openers) as pipeline:
            started = time.monotonic()
            picture = pipeline.decode(latent)
            seconds = time.monotonic() - started + sampled.seconds(sitting.case)
        store = sitting.store(cast, Level.PICTURE)
        store.save(sitting.case, {PICTURE_PORT: picture[None]}, seconds)

    def _openers(
        self, sitting: Sitting, cast: Cast, wanted: Cast
    ) -> dict[str, Callable[[], Network]]:
        target = self.bench.open_target(sitting.target)
        return {
            component: partial(artifact_network, self.manifest, target, artifact)
            if component in cast
            else partial(reference_network, self.bundle, component, self.opener)
            for component, artifact in sitting.artifacts.items()
            if component in wanted
        }

    def _hindrance(self, sitting: Sitting, cast: Cast, level: Level) -> Ruling | None:
        """Return the ruling on what an emulator is missing for, or has no time for."""
        playing = sitting.playing(cast, level)
        if not playing:
            return None
        target = self.bench.open_target(sitting.target)
        try:
            target.check_ready()
        except ToolchainError as e:
            return Ruling(Verdict.INCOMPLETE, f"not drawn: {e}")
        if target.cannot_run is not None:
            return Ruling(Verdict.INCOMPLETE, f"not drawn: {target.cannot_run}")
        if sitting.store(cast, Level.TRAJECTORY).has(sitting.case):
            playing &= {DECODER}
        runs = runs_per_picture(self.bundle, sitting.artifacts, sitting.request)
        seconds = sum(
            runs[name] * (target.run_seconds(sitting.artifacts[name], self.bench.folder) or 0.0)
            for name in playing
        )
        if seconds <= self.bench.emulator_budget:
            return None
        return too_slow("not drawn", seconds, self.bench)
