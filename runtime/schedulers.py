"""The noise schedules of Stable Diffusion 1.x, from diffusers, behind one small interface.

Latents are numpy arrays: the networks run in whatever runtime the artifact is for.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from converter.errors import InputError
from converter.families.prediction import PREDICTION_TYPES
from converter.modules import require_torch
from converter.weights import Array
from runtime.plms import MOST_STEPS, Plms

SCHEDULERS = ("ddim", "euler", "lcm", "plms")
TRAINED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
"""How every Stable Diffusion 1.x and 2.x was trained (CompVis `v1-inference.yaml`)."""


LIMITS = {"lcm": 50, "plms": MOST_STEPS}
"""The most steps of those that do not take as many as the model was trained on."""
NOISY = ("euler", "lcm")
"""Those that may add noise between steps."""


def alpha_bar(timestep: int) -> float:
    """Share of the signal's variance left at a timestep of Stable Diffusion's training.

    The "scaled linear" schedule: sqrt(beta) runs evenly from sqrt(0.00085) to sqrt(0.012) over
    1000 steps, and abar_t is the product of 1 - beta up to and including t.
    """
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return float(np.prod(1 - betas[: timestep + 1]))


class Scheduler:
    """A schedule of `steps` steps. `seed` decides the noise that LCM adds between them."""

    def __init__(
        self,
        name: str,
        steps: int,
        prediction_type: str,
        seed: int,
        *,
        zero_terminal_snr: bool = False,
    ) -> None:
        """Raises InputError for an unknown scheduler, or steps or a model it cannot take."""
        if name not in SCHEDULERS:
            raise InputError(f"unknown scheduler {name!r}: choose one of {', '.join(SCHEDULERS)}")
        if prediction_type not in PREDICTION_TYPES:
            raise InputError(
                "what this model predicts is not known, and sampling depends on it: export again "
                f"with --prediction {' or '.join(PREDICTION_TYPES)}"
            )
        if zero_terminal_snr and prediction_type == "epsilon":
            raise InputError(
                "zero terminal SNR and epsilon prediction exclude each other (in pure noise the "
                "noise tells nothing): export again with --prediction v_prediction"
            )
        require_torch("drawing a picture")
        import torch

        self._scheduler = _make(name, prediction_type, zero_terminal_snr)
        limit = LIMITS.get(name, TRAINED["num_train_timesteps"])
        if not 1 <= steps <= int(str(limit)):
            raise InputError(f"{steps} steps: scheduler {name} takes 1 to {limit}")
        self._scheduler.set_timesteps(steps)
        self.timesteps: list[float] = [float(t) for t in self._scheduler.timesteps]
        self.first_deviation = float(self._scheduler.init_noise_sigma)
        """Standard deviation of the latent that sampling begins with."""
        generator = torch.Generator().manual_seed(seed)
        self._options: dict[str, Any] = {"generator": generator} if name in NOISY else {}

    def scale(self, latent: Array, index: int) -> Array:
        """Scale the latent to what the UNet was trained on at this step."""
        import torch

        timestep = self._scheduler.timesteps[index]
        scaled = self._scheduler.scale_model_input(torch.from_numpy(latent), timestep)
        return _array(scaled)

    def step(self, noise: Array, latent: Array, index: int) -> Array:
        """Take one step from the predicted noise; float32, the shape of `latent`."""
        import torch

        timestep = self._scheduler.timesteps[index]
        inputs = (torch.from_numpy(noise), timestep, torch.from_numpy(latent))
        result = self._scheduler.step(*inputs, **self._options, return_dict=True)
        return _array(result.prev_sample)

    def clean(self, noise: Array, latent: Array, index: int) -> Array:
        """What the latent is without its noise, as predicted at this step; then sampling ends.

        From predicted noise x0 = (x - sigma * noise) / sqrt(abar), with sigma = sqrt(1 - abar).
        Raises InputError for a scheduler that does not tell.
        """
        import torch

        timestep = self._scheduler.timesteps[index]
        inputs = (torch.from_numpy(noise), timestep, torch.from_numpy(latent))
        result = self._scheduler.step(*inputs, **self._options, return_dict=True)
        for name in ("pred_original_sample", "denoised"):
            if (found := getattr(result, name, None)) is not None:
                return _array(found)
        raise InputError("this scheduler cannot end early: choose ddim, euler or lcm")


def _array(tensor: Any) -> Array:
    return np.ascontiguousarray(tensor.numpy(), np.float32)


def _make(name: str, prediction_type: str, zero_terminal_snr: bool) -> Any:
    import diffusers

    if name == "plms":
        if prediction_type != "epsilon" or zero_terminal_snr:
            raise InputError(
                "scheduler plms is for models that predict the noise: choose another scheduler"
            )
        return Plms()
    makers: dict[str, Callable[..., Any]] = {
        "ddim": diffusers.DDIMScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "lcm": diffusers.LCMScheduler,
    }
    options: dict[str, Any] = {**TRAINED, "prediction_type": prediction_type, "steps_offset": 1}
    if name != "euler":
        options |= {"clip_sample": False, "set_alpha_to_one": False}
    if zero_terminal_snr:
        # The schedule rescaled, and begun at its very end (arXiv 2305.08891, sections 3.1, 3.3).
        options |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return makers[name](**options)
