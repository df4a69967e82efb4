"""One training loop for every stage: seeded by step, saved once a minute, resumed after a kill."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from converter.files import replacing

SAVE_SECONDS = 60


@dataclass(frozen=True)
class Schedule:
    """Steps and learning rate: linear warm-up, `hold` of the steps level, then down to 2 %."""

    steps: int
    rate: float
    warm_up: int = 200
    hold: float = 0.5
    average: float = 0.999
    """Decay of the averaged weights, which are the result."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate of one step."""
        left = (self.steps - step) / (self.steps * (1 - self.hold))
        return self.rate * min(1.0, (step + 1) / self.warm_up) * min(1.0, max(0.02, left))


@dataclass(frozen=True)
class Draw:
    """The random numbers of one step: the same for a step, whenever it runs."""

    step: int
    rng: np.random.Generator
    generator: torch.Generator

    @classmethod
    def at(cls, seed: int, step: int) -> "Draw":
        """Seed both generators for one step."""
        return cls(
            step,
            np.random.default_rng([seed, step]),
            torch.Generator().manual_seed(seed * 1_000_003 + step),
        )

    def normal_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Standard normal noise in a tensor's shape."""
        return torch.randn(tensor.shape, generator=self.generator)


Weights = dict[str, torch.Tensor]


def train(
    path: Path,
    seed: int,
    parameters: Mapping[str, torch.nn.Parameter],
    loss: Callable[[Draw], torch.Tensor],
    schedule: Schedule,
) -> Weights:
    """Minimise `loss` over the named parameters; return (and keep in `path`) their averages.

    What is finished already is read back; what was interrupted goes on from its last save.
    """
    if path.exists():
        finished: Weights = load_file(path)
        return finished
    names, values = list(parameters), list(parameters.values())
    optimiser = torch.optim.AdamW(
        values, schedule.rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    averaged = {name: value.detach().clone() for name, value in parameters.items()}
    state_path = path.with_suffix(".state")
    first = 0
    if state_path.exists():
        first = _restore(state_path, parameters, averaged, optimiser)
        print(f"{path.stem}: resumed at step {first}", flush=True)
    started = saved = time.monotonic()
    smooth = 0.0
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(step)
        value = loss(Draw.at(seed, step))
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        optimiser.step()
        decay = min(schedule.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(averaged.values(), values, strict=True):
                mean.lerp_(now, 1 - decay)
        smooth += (value.item() - smooth) * max(0.02, 1 / (step - first + 1))
        if (step + 1) % 100 == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            line = f"{path.stem}: step {step + 1}/{schedule.steps}, loss {smooth:.4f}"
            print(f"{line}, {pace:.3f} s a step", flush=True)
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(state_path, step + 1, dict(zip(names, values, strict=True)), averaged, optimiser)
            saved = time.monotonic()
    with replacing(path) as work:
        save_file({name: value.contiguous() for name, value in averaged.items()}, work)
    state_path.unlink(missing_ok=True)
    return averaged


def _save(
    path: Path,
    step: int,
    values: Mapping[str, torch.nn.Parameter],
    averaged: Weights,
    optimiser: torch.optim.Optimizer,
) -> None:
    state = {
        "step": step,
        "values": {name: value.detach() for name, value in values.items()},
        "averaged": averaged,
        "optimiser": optimiser.state_dict(),
    }
    with replacing(path) as work:
        torch.save(state, work)


def _restore(
    path: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    averaged: Weights,
    optimiser: torch.optim.Optimizer,
) -> int:
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(state["values"][name])
            averaged[name].copy_(state["averaged"][name])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
