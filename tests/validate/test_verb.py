"""The verb: exit codes and what it prints."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdconv.main import run
from targets.base import Conformance
from targets.registry import TARGETS
from tests.validate.fakes import FakeReference, FakeTarget, Place


@pytest.fixture(autouse=True)
def _stand_ins(
    monkeypatch: pytest.MonkeyPatch, target: FakeTarget, reference: FakeReference
) -> None:
    monkeypatch.setitem(TARGETS, "fake", lambda: target)
    monkeypatch.setattr("targets.torch_reference.open_reference", reference)


LEVEL = ["--level", "component"]
"""There are no graphs and no sources of which more could be said."""


def test_a_pass_exits_with_0(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(place.artifacts), *LEVEL]) == 0
    printed = capfd.readouterr().out
    assert "unet 128x64 f16" in printed
    assert "pass: 4 of 4 artifacts agree" in printed


def test_a_failure_exits_with_1(place: Place, target: FakeTarget) -> None:
    target.corrupt = np.zeros_like
    assert run(["validate", str(place.artifacts), *LEVEL]) == 1


def test_incomplete_exits_with_0_and_a_warning(
    place: Place, target: FakeTarget, capfd: pytest.CaptureFixture[str]
) -> None:
    target.seconds = 61.0
    assert run(["validate", str(place.artifacts), *LEVEL, "--emulator-budget", "1"]) == 0
    printed = capfd.readouterr()
    assert "warning: not everything was run" in printed.err
    assert "not run on the emulator: about 4 min" in " ".join(printed.out.split())
    assert run(["validate", str(place.artifacts), *LEVEL, "--emulator-budget", "5"]) == 0
    assert run(["validate", str(place.artifacts), *LEVEL, "--judge-only"]) == 0


def test_a_file_that_its_consumer_would_not_load_fails_whatever_it_computes(
    place: Place, target: FakeTarget, capfd: pytest.CaptureFixture[str]
) -> None:
    good = Conformance("unet", "fake", "unet.bin", "sd-lcm-tpu", "model_tool", ())
    bad = replace(good, path="vae.bin", faults=("input 0 is <int64>", "and more"))
    target.checked = [good, good]
    assert run(["validate", str(place.artifacts), *LEVEL]) == 0
    assert "unet.bin: conforms to sd-lcm-tpu (model_tool)" in capfd.readouterr().out
    target.checked = [good, bad]
    for words in ([], ["--judge-only"]):
        assert run(["validate", str(place.artifacts), *LEVEL, *words]) == 1
    out = capfd.readouterr().out
    assert "vae.bin: would not load in hosts of sd-lcm-tpu: input 0 is <int64>" in out
    assert "fail: 1 of 2 files would not load in their consumer." in out
    report = json.loads((place.artifacts / "report.json").read_text())
    assert report["verdict"] == "fail"
    assert report["conformance"][1] == {
        "component": "unet",
        "target": "fake",
        "path": "vae.bin",
        "consumer": "sd-lcm-tpu",
        "reader": "model_tool",
        "faults": ["input 0 is <int64>", "and more"],
    }
    page = (place.artifacts / "report.html").read_text()
    assert "input 0 is &lt;int64&gt;<br>and more" in page
    assert "it conforms" in page


def test_a_folder_without_artifacts_exits_with_2(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(place.bundle)]) == 2
    assert "manifest made by 'sdconv compile'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--level", "loud"], "choose of export, component, layer, trajectory, picture"),
        (["--level", ","], "choose of export"),
        (["--level", "picture"], "say what with --prompt"),
        (["--rescue", "--judge-only"], "--rescue runs and compiles"),
        (["--reduce", "--judge-only"], "--reduce runs and compiles"),
        (["--reduce", "--level", "layer"], "add component to --level"),
        (["--attribute"], "--attribute: there is nothing to draw"),
        (["--recogniser", "x.py"], "--recogniser: there is nothing to draw"),
        (["--attribute", "--prompt", "a", "--level", "component"], "nothing to draw"),
    ],
)
def test_options_that_would_do_nothing_are_one_line(
    words: list[str], said: str, place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(place.artifacts), *words]) == 2
    assert said in capfd.readouterr().err
    assert not (place.artifacts / "report.json").exists()
