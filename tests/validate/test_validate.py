"""The whole way, over numpy networks: run, reuse, refuse, judge again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.errors import InputError
from converter.sizes import Size
from converter.weights import Array
from targets.base import ToolchainError
from targets.manifest import Manifest
from tests.validate.fakes import RESIDUALS, FakeReference, FakeTarget, Place, judge
from validate.base import Link, Report, Verdict
from validate.validate import ValidateRequest

Go = Callable[..., Report]


@pytest.fixture
def go(place: Place, target: FakeTarget, reference: FakeReference) -> Go:
    def run(**options: object) -> Report:
        request = ValidateRequest(place.artifacts, **options)  # type: ignore[arg-type]
        targets = {"fake": target}
        return judge(request, targets, reference)

    return run


def saved_json(place: Place) -> dict[str, object]:
    data = json.loads((place.artifacts / "report.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(data, dict)
    return data


def test_equal_networks_pass(go: Go, place: Place) -> None:
    report = go()
    assert report.verdict is Verdict.PASS
    assert (
        report.sentence == "4 of 4 artifacts agree with the fp32 reference within their thresholds"
    )
    data = saved_json(place)
    assert (data["schema"], data["verdict"]) == (2, "pass")
    results = data["results"]
    assert isinstance(results, list)
    unet = next(result for result in results if result["component"] == "unet")
    wanted = {"size": "128x64", "precision": "f16", "level": "component", "target": "fake",
              "chip": "chip", "nan": 0, "inf": 0, "verdict": "pass"}  # fmt: skip
    assert {name: unet[name] for name in wanted} == wanted
    assert unet["psnr_db"] == 300
    assert unet["threshold"]["psnr_db"] == 35
    assert [case["case"] for case in unet["cases"]] == ["t501-residuals", "t981", "t501", "t20.5"]


def test_noise_of_half_precision_passes_with_the_worst_case_first(
    go: Go, target: FakeTarget
) -> None:
    target.corrupt = lambda x: x.astype(np.float16).astype(np.float32)
    report = go()
    assert report.verdict is Verdict.PASS
    for result in report.results:
        levels = [c.measurement.agreement.psnr_db for c in result.checks  # type: ignore[union-attr]
                  if c.measurement]  # fmt: skip
        assert levels == sorted(levels)


@pytest.mark.parametrize(
    "corrupt",
    [
        np.zeros_like,
        lambda x: x * 2,
        lambda x: np.roll(x, 1, axis=1),
        lambda x: np.where(x == x.max(), np.nan, x),
        lambda x: np.where(x == x.max(), np.inf, x),
        lambda x: x[..., :-1],
    ],
    ids=["zeros", "twice", "permuted", "nan", "inf", "shape"],
)
def test_wrong_artifacts_fail(
    corrupt: Callable[[np.ndarray], np.ndarray],
    go: Go,
    target: FakeTarget,
) -> None:
    target.corrupt = corrupt
    report = go()
    assert report.verdict is Verdict.FAIL
    assert {result.verdict for result in report.results} == {Verdict.FAIL}


def test_exchanged_residual_ports_fail(go: Go, target: FakeTarget) -> None:
    def exchange(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        one, other = RESIDUALS[1:]
        return {**inputs, one: inputs[other], other: inputs[one]}

    target.rewire = exchange
    failed = [result for result in go().results if result.verdict is Verdict.FAIL]
    assert [result.component for result in failed] == ["unet"]
    assert failed[0].worst.case == "t501-residuals"


def test_nothing_is_run_twice(
    go: Go, place: Place, target: FakeTarget, reference: FakeReference
) -> None:
    go()
    assert (len(target.runs), reference.runs.count("unet")) == (13, 4)
    target.runs.clear()
    reference.runs.clear()
    report = go()
    assert (target.runs, reference.runs) == ([], [])
    assert "reused: same artifact, weights and inputs" in report.results[0].note
    # A new artifact is run again, on the reference outputs that are there.
    place.recompile("vae_decoder", "v2")
    go()
    assert (target.runs, reference.runs) == (["vae_decoder"] * 3, [])


def test_an_interrupted_run_goes_on_with_the_next_case(
    go: Go, target: FakeTarget, place: Place
) -> None:
    def interrupt(x: Array) -> Array:
        if len(target.runs) == 2:
            raise KeyboardInterrupt
        return x

    target.corrupt = interrupt
    with pytest.raises(KeyboardInterrupt):
        go()
    assert not [*place.artifacts.rglob("*.partial")]
    assert not (place.artifacts / "report.json").exists()
    target.runs.clear()
    target.corrupt = lambda x: x
    assert go().verdict is Verdict.PASS
    assert target.runs.count("text_encoder") == 2


def test_what_exceeds_the_emulators_budget_is_never_a_pass(
    go: Go, target: FakeTarget, reference: FakeReference, place: Place
) -> None:
    target.seconds = 3600.0
    report = go()
    assert report.verdict is Verdict.INCOMPLETE
    unet = next(result for result in report.results if result.component == "unet")
    assert unet.worst.ruling.sentence.startswith("not run on the emulator: about 240 min")
    assert (target.runs, reference.runs) == ([], [])
    assert saved_json(place)["verdict"] == "incomplete"


def test_a_budget_for_some_cases_runs_the_most_telling(go: Go, target: FakeTarget) -> None:
    target.seconds = 250.0
    report = go(emulator_budget=600.0)
    unet = next(result for result in report.results if result.component == "unet")
    verdicts = {check.case: check.ruling.verdict for check in unet.checks}
    assert verdicts == {
        "t501-residuals": Verdict.PASS,
        "t981": Verdict.PASS,
        "t501": Verdict.INCOMPLETE,
        "t20.5": Verdict.INCOMPLETE,
    }
    assert report.verdict is Verdict.INCOMPLETE
    # The rest of the budget goes on where the first run stopped.
    assert go(emulator_budget=600.0).verdict is Verdict.PASS


def test_a_failure_outweighs_what_was_not_run(go: Go, target: FakeTarget) -> None:
    target.seconds, target.corrupt = 250.0, np.zeros_like
    assert go().verdict is Verdict.FAIL


def half(x: Array) -> Array:
    return x.astype(np.float16).astype(np.float32)


def test_what_is_too_slow_is_judged_by_its_lowered_network(
    go: Go, target: FakeTarget, place: Place
) -> None:
    target.seconds, target.lowered = 3600.0, half
    report = go()
    assert report.verdict is Verdict.INCOMPLETE
    unet = next(result for result in report.results if result.component == "unet")
    assert unet.note == "ran 4 of 4 cases in the compiler's interpreter in 0 s"
    assert {check.link for check in unet.checks} == {Link.LOWERED}
    assert "needed; its instructions were not run at any size" in unet.worst.ruling.sentence
    target.runs.clear()
    assert go().verdict is Verdict.INCOMPLETE
    assert target.runs == []
    assert go(judge_only=True).results[0].worst.measurement is not None
    results = saved_json(place)["results"]
    assert isinstance(results, list)
    assert results[0]["cases"][0]["link"] == "lowered network"


def test_what_no_machine_emulates_is_never_a_pass(go: Go, target: FakeTarget) -> None:
    target.cannot_run, target.lowered = "its emulator never ends", half
    report = go()
    assert report.verdict is Verdict.INCOMPLETE
    unet = next(result for result in report.results if result.component == "unet")
    assert {check.link for check in unet.checks} == {Link.LOWERED}
    target.lowered = None
    unet = next(result for result in go().results if result.component == "text_encoder")
    assert unet.worst.ruling.sentence.endswith("; its instructions were not run at any size")


def test_a_verdict_stands_while_the_artifact_computes_the_same(
    go: Go, target: FakeTarget, place: Place
) -> None:
    """Another size in the same file is another file, which computes the same at this size."""

    def in_a_file_of_several(content: str, computes: str) -> None:
        place.recompile("unet", content)
        manifest = Manifest.load(place.artifacts)
        changed = [
            replace(a, key="stage", content=computes) if a.component == "unet" else a
            for a in manifest.artifacts
        ]
        replace(manifest, artifacts=changed).save()

    in_a_file_of_several("one size", "the same")
    go()
    target.runs.clear()
    in_a_file_of_several("two sizes", "the same")
    assert go().verdict is Verdict.PASS
    assert target.runs == []
    in_a_file_of_several("two sizes", "another")
    assert go().verdict is Verdict.PASS
    assert set(target.runs) == {"unet"}


def test_a_lowered_network_of_nan_fails(go: Go, target: FakeTarget) -> None:
    target.seconds, target.lowered = 3600.0, lambda x: x * np.nan
    report = go()
    assert report.verdict is Verdict.FAIL
    sentence = report.results[0].worst.ruling.sentence
    assert sentence.startswith("lowered network, in the compiler's interpreter: ")
    assert "NaN" in sentence


def test_a_lowered_network_passes_where_another_size_was_run_itself(
    go: Go, target: FakeTarget, place: Place
) -> None:
    place.add_size("unet", Size(512, 512))
    target.seconds, target.slow_sizes, target.lowered = 3600.0, (Size(512, 512),), half
    report = go()
    assert report.verdict is Verdict.PASS
    large = next(result for result in report.results if result.size == Size(512, 512))
    assert large.worst.ruling.sentence.endswith("; instructions run at 128x64, not at 512x512")


def test_a_size_that_fails_proves_nothing_for_another(
    go: Go, target: FakeTarget, place: Place
) -> None:
    place.add_size("unet", Size(512, 512))
    target.seconds, target.slow_sizes, target.lowered = 3600.0, (Size(512, 512),), half
    target.corrupt = np.zeros_like
    report = go()
    assert report.verdict is Verdict.FAIL
    large = next(result for result in report.results if result.size == Size(512, 512))
    assert large.verdict is Verdict.INCOMPLETE


def test_the_interpreter_keeps_to_the_budget_and_what_does_not_fit_is_said(
    go: Go, target: FakeTarget
) -> None:
    target.seconds, target.lowered = 3600.0, half
    report = go(emulator_budget=1e-9)
    unet = next(result for result in report.results if result.component == "unet")
    assert [check.measurement is not None for check in unet.checks] == [True, False, False, False]
    target.runs.clear()
    go(emulator_budget=0.0)
    assert target.runs == []
    target.lowering = ToolchainError("it needs more memory")
    report = go(emulator_budget=1e-9)
    assert report.verdict is Verdict.INCOMPLETE
    notes = [result.note for result in report.results]
    assert "nor in the compiler's interpreter: it needs more memory" in notes


def test_an_artifact_with_a_table_of_its_own_is_not_interpreted(
    go: Go, target: FakeTarget, place: Place
) -> None:
    manifest = Manifest.load(place.artifacts)
    tabled = [replace(artifact, quantize_table="beef") for artifact in manifest.artifacts]
    replace(manifest, artifacts=tabled).save()
    target.seconds, target.lowered = 3600.0, half
    report = go()
    assert target.runs == []
    assert all("its table of precisions would be needed" in r.note for r in report.results)


def test_a_missing_emulator_is_incomplete_and_a_broken_file_fails(
    go: Go, target: FakeTarget
) -> None:
    target.installed = False
    report = go()
    assert report.verdict is Verdict.INCOMPLETE
    assert "not installed: install it" in report.results[0].worst.ruling.sentence
    target.installed, target.breaks = True, True
    report = go()
    assert report.verdict is Verdict.FAIL
    assert "cannot be loaded" in report.results[0].worst.ruling.sentence


def test_saved_outputs_are_judged_again_without_running(
    go: Go, target: FakeTarget, place: Place
) -> None:
    go()
    target.runs.clear()
    assert go(judge_only=True).verdict is Verdict.PASS
    place.recompile("unet", "v2")
    report = go(judge_only=True)
    assert report.verdict is Verdict.INCOMPLETE
    assert target.runs == []


def test_a_moved_bundle_is_asked_for_and_taken(go: Go, place: Place, tmp_path: Path) -> None:
    place.bundle.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="--bundle"):
        go()
    assert go(bundle=tmp_path / "elsewhere").verdict is Verdict.PASS


def test_a_changed_file_is_refused(go: Go, place: Place) -> None:
    (place.artifacts / "unet.bin").write_text("something else")
    with pytest.raises(InputError, match="changed since it was compiled"):
        go()


def test_what_was_saved_expires_with_the_weights_beside_an_artifact(
    go: Go, target: FakeTarget, place: Place
) -> None:
    place.put_beside("unet", "one")
    go()
    target.runs.clear()
    go()
    assert target.runs == []
    place.put_beside("unet", "other")
    go()
    assert set(target.runs) == {"unet"}


def test_anothers_bundle_is_refused(go: Go, place: Place) -> None:
    path = place.bundle / "bundle.json"
    path.write_text(path.read_text().replace('"moments"', '"latent_parameters"'))
    with pytest.raises(InputError, match="vae_encoder was not compiled from"):
        go()


def test_reports_go_where_they_are_asked_to(go: Go, place: Place, tmp_path: Path) -> None:
    html, data = tmp_path / "a" / "x.html", tmp_path / "b" / "x.json"
    go(report=html, json=data)
    assert html.read_text().startswith("<!doctype html>")
    assert json.loads(data.read_text())["verdict"] == "pass"
    assert not (place.artifacts / "report.html").exists()
