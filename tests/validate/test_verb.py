"""The verb: exit codes and what it prints."""

import numpy as np
import pytest

from sdconv.main import run
from targets.registry import TARGETS
from tests.validate.fakes import FakeReference, FakeTarget, Place


@pytest.fixture(autouse=True)
def _stand_ins(
    monkeypatch: pytest.MonkeyPatch, target: FakeTarget, reference: FakeReference
) -> None:
    monkeypatch.setitem(TARGETS, "fake", lambda: target)
    monkeypatch.setattr("targets.torch_reference.open_reference", reference)


def test_a_pass_exits_with_0(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(place.artifacts)]) == 0
    printed = capfd.readouterr().out
    assert "unet 128x64 f16" in printed
    assert "pass: 4 of 4 artifacts agree" in printed


def test_a_failure_exits_with_1(place: Place, target: FakeTarget) -> None:
    target.corrupt = np.zeros_like
    assert run(["validate", str(place.artifacts)]) == 1


def test_incomplete_exits_with_0_and_a_warning(
    place: Place, target: FakeTarget, capfd: pytest.CaptureFixture[str]
) -> None:
    target.seconds = 61.0
    assert run(["validate", str(place.artifacts), "--emulator-budget", "1"]) == 0
    printed = capfd.readouterr()
    assert "warning: not everything was run" in printed.err
    assert "not run on the emulator: about 4 min" in " ".join(printed.out.split())
    assert run(["validate", str(place.artifacts), "--emulator-budget", "5"]) == 0
    assert run(["validate", str(place.artifacts), "--judge-only"]) == 0


def test_a_folder_without_artifacts_exits_with_2(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(place.bundle)]) == 2
    assert "manifest made by 'sdconv compile'" in capfd.readouterr().err
