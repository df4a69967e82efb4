"""The sampler of MNN's diffusion engine, as it computes it.

Source: MNN 3.6.1, `transformers/diffusion/engine/src/stable_diffusion.cpp` (`step_plms`, `run`) and
`scheduler.cpp`. It is the pseudo linear multistep method (arXiv 2202.09778) with fourth-order
differences of the predicted noise, but not that of diffusers: of n steps every one evaluates the
UNet at a time of its own, where the method has it evaluate the second time twice (diffusers runs
n + 1 times). From the third step on the UNet is therefore told the time of the step after, and the
last step ends at the noise of time 0. A picture of the engine is only predicted with its habits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.weights import Array

MOST_STEPS = 50
"""The engine makes 50 of any more."""


@dataclass(frozen=True)
class Stepped:
    """The latent after a step, under the name that the schedulers of diffusers give it."""

    prev_sample: Any


class Plms:
    """The methods of a scheduler of diffusers that `runtime.schedulers` calls."""

    init_noise_sigma = 1.0

    def __init__(self) -> None:
        self.timesteps: list[int] = []
        self._alphas = _alphas()
        self._noises: list[Any] = []
        self._first: Any = None

    def set_timesteps(self, steps: int) -> None:
        """Begin anew with so many steps: 1, 1 + 1000 // steps and so on, backwards."""
        apart = len(self._alphas) // steps
        self.timesteps = [1 + index * apart for index in reversed(range(steps))]
        self._noises = []

    def scale_model_input(self, sample: Any, timestep: int) -> Any:
        """The UNet is given the latent as it is."""
        del timestep
        return sample

    def step(self, noise: Any, timestep: int, sample: Any, *, return_dict: bool) -> Stepped:
        """Go from one timestep to the next; torch tensors."""
        assert return_dict
        index = self.timesteps.index(timestep)
        after = [*self.timesteps[1:], 0][index]
        if index == 0:
            self._first = sample
        if index == 1:  # the first step again, with the mean of the noise at both its ends
            timestep, after, sample = self.timesteps[0], self.timesteps[1], self._first
            return Stepped(self._moved(sample, (noise + self._noises[-1]) * 0.5, timestep, after))
        self._noises = [*self._noises[-3:], noise]
        return Stepped(self._moved(sample, _extrapolated(self._noises), timestep, after))

    def _moved(self, sample: Any, noise: Any, timestep: int, after: int) -> Any:
        """Equation 11 of arXiv 2202.09778, in float32."""
        one = np.float32(1)
        now, then = self._alphas[timestep], self._alphas[after]
        denominator = now * np.sqrt(one - then) + np.sqrt(now * (one - now) * then)
        return float(np.sqrt(then / now)) * sample - float((then - now) / denominator) * noise


def _alphas() -> Array:
    """The share of the signal's variance left at each of 1000 timesteps, in float32 as there."""
    start, end = np.sqrt(np.array([0.00085, 0.012], np.float32))
    roots = start + np.arange(1000, dtype=np.float32) * ((end - start) / np.float32(999))
    return np.cumprod(np.float32(1) - roots * roots, dtype=np.float32)


def _extrapolated(noises: Sequence[Any]) -> Any:
    """Adams and Bashforth's combination of the last noises, of as high an order as there are."""
    if len(noises) == 1:
        return noises[0]
    *_, before, last = noises
    if len(noises) == 2:
        return (3.0 * last - before) * 0.5
    if len(noises) == 3:
        return (23.0 * last - 16.0 * before + 5.0 * noises[-3]) * (1 / 12)
    return (1 / 24) * (55.0 * last - 59.0 * before + 37.0 * noises[-3] - 9.0 * noises[-4])
