"""Artifacts timed on this machine, each in a process of its own."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from converter.bundle import Bundle
from converter.progress import silent
from converter.sizes import Size
from converter.weights import Array
from runtime.sampling import PictureRequest
from sdconv.main import run
from targets.base import Artifact, Runner, ToolchainError
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from tests.validate.fakes import FakeTarget, Place
from validate.report.terminal import print_measured
from validate.timing import Measured, OpenTarget, Timing, measured_latency

HUNDRED_MB = 100 << 20


class Hungry(Runner):
    """Takes a hundred megabytes while it runs."""

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        del inputs
        return {"taken": np.ones(HUNDRED_MB, np.uint8)}


class HungryTarget(FakeTarget):
    def open(self, artifact: Artifact, folder: Path) -> Runner:
        del artifact, folder
        return Hungry()


class DeadlyTarget(FakeTarget):
    def open(self, artifact: Artifact, folder: Path) -> Runner:
        del artifact, folder
        os._exit(9)


# By name, so that another process finds them.
def open_plain(_: str) -> FakeTarget:
    return FakeTarget()


def open_hungry(_: str) -> FakeTarget:
    return HungryTarget()


def open_deadly(_: str) -> FakeTarget:
    return DeadlyTarget()


def open_broken(_: str) -> FakeTarget:
    return FakeTarget(breaks=True)


def here(place: Place, *components: str) -> tuple[Manifest, Bundle]:
    """The artifacts of these components, for no chip."""
    manifest = Manifest.load(place.artifacts)
    kept = [replace(a, chip=None) for a in manifest.artifacts if a.component in components]
    return replace(manifest, artifacts=kept), Bundle.load(place.bundle)


def peak(place: Place, open_target: OpenTarget) -> int:
    request = PictureRequest("")
    measured = measured_latency(*here(place, "vae_decoder"), request, 2, silent, open_target)
    assert measured is not None
    (timing,) = measured.timings
    assert len(timing.runs_ms) == 2
    return timing.peak


def test_memory_is_that_of_the_process_that_ran_it(place: Place) -> None:
    mine = np.ones(3 * HUNDRED_MB, np.uint8)  # of this process, and not counted
    plain, hungry = peak(place, open_plain), peak(place, open_hungry)
    assert mine.nbytes > plain
    # A run's output goes before the next begins, but for one that is being replaced.
    assert HUNDRED_MB * 0.9 < hungry - plain < HUNDRED_MB * 2.1


def test_what_cannot_be_run_is_said(place: Place) -> None:
    request = PictureRequest("")
    with pytest.raises(ToolchainError, match="the file cannot be loaded"):
        measured_latency(*here(place, "unet"), request, 1, silent, open_broken)
    with pytest.raises(ToolchainError, match="ended with exit code 9: is there enough memory"):
        measured_latency(*here(place, "unet"), request, 1, silent, open_deadly)


def test_what_is_for_a_chip_is_not_run(place: Place) -> None:
    manifest, bundle = Manifest.load(place.artifacts), Bundle.load(place.bundle)
    assert measured_latency(manifest, bundle, PictureRequest(""), 1, silent, open_deadly) is None


def test_bench_measures_onnxruntime(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = ("text_encoder", "unet", "vae_decoder")
    request = CompileRequest(
        small_bundle.folder, "onnxruntime", (Size(64, 64),), tmp_path, components=drawing
    )
    compile_bundle(request)
    options = ["--repeat", "3", "--steps", "2", "--guidance", "1"]
    assert run(["bench", str(tmp_path), "--json", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["predicted"] is None
    measured = told["measured"]
    assert measured["processor"] and measured["cores"] >= 1
    by_component = {a["component"]: a for a in measured["artifacts"]}
    assert [*by_component] == [*drawing]
    for artifact in by_component.values():
        assert len(artifact["runs_ms"]) == 3
        assert min(artifact["runs_ms"]) <= artifact["ms"] <= max(artifact["runs_ms"])
        assert artifact["peak"] > 50e6
        assert 0 < artifact["cores_used"] <= measured["cores"] + 0.5
    (picture,) = measured["pictures"]
    ms = {component: artifact["ms"] for component, artifact in by_component.items()}
    expected = ms["text_encoder"] + 2 * ms["unet"] + ms["vae_decoder"]
    assert picture["ms"] == pytest.approx(expected)


@pytest.mark.parametrize("cores_used", [0.3, 1.9])
def test_a_busy_machine_is_said(place: Place, cores_used: float) -> None:
    manifest, _ = here(place, "unet")
    timing = Timing(manifest.artifacts[0], (20.0, 10.0, 90.0), HUNDRED_MB, cores_used)
    console = Console(file=StringIO(), width=80)
    print_measured(Measured("a processor", 2, [timing], "4 steps", [], ["no unet"]), console)
    assert isinstance(console.file, StringIO)
    said = console.file.getvalue()
    (row,) = (line.split() for line in said.splitlines() if line.startswith("unet 128x64 f16"))
    assert row[3:] == ["fake", "20.0", "10.0", "90.0", "3", f"{cores_used}", "105"]
    assert ("other work kept the cores busy" in said) == (cores_used < 1)
    assert "no time of a picture: no unet" in said
