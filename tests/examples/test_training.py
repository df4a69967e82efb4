"""The loop under every stage: what is killed goes on and ends at the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from examples.mini import training
from examples.mini.training import Draw, Schedule, train

SCHEDULE = Schedule(steps=40, rate=0.05, warm_up=5)


class KilledError(Exception):
    pass


def run(path: Path, until: int = SCHEDULE.steps) -> training.Weights:
    weight = torch.nn.Parameter(torch.ones(3))
    target = torch.tensor([1.0, -2.0, 0.5])

    def loss(d: Draw) -> torch.Tensor:
        if d.step == until:
            raise KilledError
        noisy: torch.Tensor = weight - target + 0.1 * d.normal_like(weight)
        return noisy.square().sum()

    return train(path, 5, {"weight": weight}, loss, SCHEDULE)


def test_a_killed_stage_ends_at_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)  # after every step
    whole = run(tmp_path / "whole.safetensors")
    with pytest.raises(KilledError):
        run(tmp_path / "killed.safetensors", until=17)
    assert not (tmp_path / "killed.safetensors").exists()
    resumed = run(tmp_path / "killed.safetensors")
    assert torch.equal(resumed["weight"], whole["weight"])
    assert not torch.equal(whole["weight"], torch.ones(3))
    assert [*tmp_path.glob("*.state")] == []


def test_a_finished_stage_is_read_back(tmp_path: Path) -> None:
    first = run(tmp_path / "done.safetensors")
    again = run(tmp_path / "done.safetensors", until=0)
    assert torch.equal(first["weight"], again["weight"])
    assert torch.equal(load_file(tmp_path / "done.safetensors")["weight"], first["weight"])


def test_a_steps_random_numbers_do_not_depend_on_the_steps_before() -> None:
    like = torch.empty(4)
    assert torch.equal(Draw.at(1, 9).normal_like(like), Draw.at(1, 9).normal_like(like))
    assert not torch.equal(Draw.at(1, 9).normal_like(like), Draw.at(1, 10).normal_like(like))
    assert Draw.at(1, 9).rng.random() == Draw.at(1, 9).rng.random()


def test_the_rate_warms_up_stays_and_falls() -> None:
    rates = [SCHEDULE.rate_at(step) / SCHEDULE.rate for step in range(SCHEDULE.steps)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:20] == [1.0] * 15
    assert rates[-1] == pytest.approx(0.05) and rates == sorted(rates[:5]) + sorted(
        rates[5:], reverse=True
    )
