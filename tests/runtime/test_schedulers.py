import numpy as np
import pytest

from converter.errors import InputError
from runtime.schedulers import SCHEDULERS, Scheduler


def signal(timestep: float) -> float:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return float(np.cumprod(1 - betas)[int(timestep)] ** 0.5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_with_the_noise_known_every_scheduler_arrives_at_the_clean_latent(name: str) -> None:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((1, 4, 2, 2)).astype(np.float32)
    scheduler = Scheduler(name, 8, "epsilon", seed=0)
    latent = rng.standard_normal(clean.shape).astype(np.float32) * scheduler.first_deviation
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale(latent, index)
        a = signal(timestep)
        noise = (scaled - a * clean) / np.sqrt(1 - a * a)
        latent = scheduler.step(noise.astype(np.float32), latent, index)
    # DDIM ends at the noise of timestep 0, which is 3 % of the signal.
    assert np.abs(latent - clean).max() < 0.1


@pytest.mark.parametrize(("name", "first"), [("ddim", 951), ("euler", 999), ("lcm", 999)])
def test_timesteps_fall_from_almost_pure_noise(name: str, first: int) -> None:
    timesteps = Scheduler(name, 20, "epsilon", seed=0).timesteps
    assert len(timesteps) == 20 and timesteps[0] == first
    assert timesteps == sorted(timesteps, reverse=True)


def test_the_noise_that_lcm_adds_comes_from_the_seed() -> None:
    latent = np.ones((1, 4, 2, 2), np.float32)

    def second(seed: int) -> float:
        scheduler = Scheduler("lcm", 4, "epsilon", seed)
        return float(scheduler.step(latent, latent, 0)[0, 0, 0, 0])

    assert second(1) == second(1) != second(2)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "plms"])
def test_v_prediction_down_to_pure_noise_arrives_at_the_clean_latent(name: str) -> None:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((1, 4, 2, 2)).astype(np.float32)
    scheduler = Scheduler(name, 8, "v_prediction", seed=0, zero_terminal_snr=True)
    assert scheduler.timesteps[0] == 999
    latent = rng.standard_normal(clean.shape).astype(np.float32) * scheduler.first_deviation
    alphas = scheduler._scheduler.alphas_cumprod
    assert alphas[999] < 1e-6
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale(latent, index)
        a = float(alphas[int(timestep)]) ** 0.5
        noise = (scaled - a * clean) / np.sqrt(1 - a * a)
        v = a * noise - np.sqrt(1 - a * a) * clean  # arXiv 2202.00512, appendix D
        latent = scheduler.step(v.astype(np.float32), latent, index)
    assert np.abs(latent - clean).max() < 0.1


def test_what_cannot_be_asked() -> None:
    with pytest.raises(InputError, match="export again with --prediction epsilon or v_prediction"):
        Scheduler("ddim", 4, "unknown", 0)
    with pytest.raises(InputError, match=r"exclude each other.*--prediction v_prediction"):
        Scheduler("ddim", 4, "epsilon", 0, zero_terminal_snr=True)
    with pytest.raises(InputError, match="unknown scheduler 'pndm': choose one of ddim"):
        Scheduler("pndm", 4, "epsilon", 0)
    with pytest.raises(InputError, match="51 steps: scheduler lcm takes 1 to 50"):
        Scheduler("lcm", 51, "epsilon", 0)
    with pytest.raises(InputError, match="plms is for models that predict the noise"):
        Scheduler("plms", 4, "v_prediction", 0)
