"""Trajectories and attribution over numpy networks: where they part, and who is to blame."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from converter.weights import Array
from runtime.sampling import PictureRequest
from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from validate.base import Level, Report, Result, Verdict
from validate.validate import ValidateRequest

Go = Callable[..., Report]
REQUEST = PictureRequest("a red circle", scheduler="ddim", steps=3, guidance=1.0)


@pytest.fixture
def go(place: Place, target: FakeTarget, reference: FakeReference) -> Go:
    def run(**options: object) -> Report:
        request = ValidateRequest(
            place.artifacts,
            picture=REQUEST,
            **options,  # type: ignore[arg-type]
        )
        return judge(request, {"fake": target}, reference)

    return run


def of_level(report: Report, level: Level) -> Result:
    (result,) = (result for result in report.results if result.level == level)
    return result


def noisy(x: Array) -> Array:
    noise = np.random.default_rng(3).standard_normal(x.shape, np.float32)
    return np.asarray(x + 0.2 * noise)


def test_the_same_networks_never_part(go: Go) -> None:
    result = of_level(go(), Level.TRAJECTORY)
    assert result.verdict is Verdict.PASS
    assert [check.position for check in result.in_order] == [0, 1, 2]
    assert result.in_order[0].case == "step 1 (timestep 667)"
    assert result.blame == "they never part: at least 300.0 dB over 3 steps"


def test_a_trajectory_alone_runs_no_decoder_and_a_picture_goes_on_from_it(
    go: Go, target: FakeTarget, reference: FakeReference
) -> None:
    report = go(levels=(Level.TRAJECTORY,))
    assert [result.level for result in report.results] == [Level.TRAJECTORY]
    assert target.runs == reference.runs == ["text_encoder", "unet", "unet", "unet"]
    target.runs.clear()
    assert [r.level for r in go(levels=(Level.PICTURE,)).results] == [Level.PICTURE]
    assert target.runs == ["vae_decoder"]


def test_they_part_at_the_step_where_an_artifact_goes_wrong(go: Go, target: FakeTarget) -> None:
    def from_the_second_step(x: Array) -> Array:
        return noisy(x) if target.runs.count("unet") > 1 else x

    target.corrupt, target.spoilt = from_the_second_step, "unet"
    result = of_level(go(levels=(Level.TRAJECTORY,)), Level.TRAJECTORY)
    assert result.verdict is Verdict.FAIL
    assert result.in_order[0].ruling.verdict is Verdict.PASS
    assert result.blame.startswith("they part at step 2 (timestep 334): ")
    assert "300.0 dB a step before" in result.blame


def test_nan_is_a_place_to_part_at(go: Go, target: FakeTarget) -> None:
    target.corrupt, target.spoilt = (lambda x: np.where(x == x.max(), np.nan, x)), "unet"
    result = of_level(go(levels=(Level.TRAJECTORY,)), Level.TRAJECTORY)
    assert result.blame.startswith("they part at step 1 (timestep 667): no number")


@pytest.mark.parametrize("culprit", ["text_encoder", "unet", "vae_decoder"])
def test_the_culprit_is_named(culprit: str, go: Go, target: FakeTarget) -> None:
    target.corrupt, target.spoilt = (lambda x: noisy(x) + 1), culprit
    report = go()
    picture = of_level(report, Level.PICTURE)
    assert picture.verdict is Verdict.FAIL
    assert picture.blame.startswith(f"{culprit} f16 makes 100% of the error")
    attribution = report.attributions[-1]
    assert attribution.by_cost[0].component == culprit
    assert {s.component for s in attribution.shares} == {"text_encoder", "unet", "vae_decoder"}
    # What the decoder does, no latent can show.
    trajectory = of_level(report, Level.TRAJECTORY)
    assert (trajectory.verdict is Verdict.PASS) is (culprit == "vae_decoder")


def test_a_culprit_without_a_number_comes_first(go: Go, target: FakeTarget) -> None:
    target.corrupt, target.spoilt = (lambda x: np.full_like(x, np.nan)), "vae_decoder"
    attribution = go().attributions[0]
    assert attribution.by_cost[0].component == "vae_decoder"
    assert attribution.cost_db(attribution.by_cost[0]) is None
    assert "are NaN or Inf" in attribution.sentence


def test_what_passes_is_attributed_only_when_asked(go: Go, target: FakeTarget) -> None:
    target.corrupt = lambda x: x.astype(np.float16).astype(np.float32)
    assert go().attributions == []
    target.runs.clear()
    found = go(attribute=True).attributions
    assert [one.level for one in found] == [Level.TRAJECTORY, Level.PICTURE]
    # Each alone: what another has drawn is not drawn again.
    assert target.runs == ["text_encoder", "unet", "unet", "unet", "vae_decoder"]
    costs = [found[1].cost_db(share) for share in found[1].shares]
    portions = [found[1].portion(share) for share in found[1].shares]
    assert all(cost is not None and cost > 0 for cost in costs)
    assert sum(portion or 0 for portion in portions) == pytest.approx(1)


def test_several_prompts_are_judged_together(go: Go) -> None:
    result = of_level(go(prompts=("a blue star",)), Level.PICTURE)
    assert len(result.checks) == 2
    assert sorted(c.about.split(",")[0] for c in result.checks) == [
        '"a blue star"', '"a red circle"',
    ]  # fmt: skip


def test_another_schedule_is_another_trajectory(go: Go, place: Place) -> None:
    go()
    folder = place.artifacts / "validation" / "reference" / "trajectory-128x64"
    before = len([*folder.iterdir()])
    request = replace(REQUEST, steps=2)
    options = ValidateRequest(place.artifacts, picture=request)
    judge(options, {"fake": FakeTarget()}, FakeReference())
    assert len([*folder.iterdir()]) == before + 1
