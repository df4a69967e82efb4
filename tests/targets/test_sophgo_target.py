"""The Sophgo target around a fake compiler: the cache of skeletons, failures, refusals."""

import json
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from converter.errors import InputError
from converter.progress import Event, silent
from converter.sizes import Size
from targets import machine
from targets.base import DeviceMemory, ToolchainError
from targets.machine import Machine
from targets.registry import get_target
from targets.sophgo.chips import CHIPS, REFUSED
from targets.sophgo.compilation import BMODEL_FILE, recipe, steps
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from tests.targets.sophgo_jobs import Weights, file_of, job, random_values


def test_a_job_is_compiled_once(target: SophgoTarget, weights: Weights, tmp_path: Path) -> None:
    one = job(tmp_path, Size(128, 64))
    first = target.compile(one, weights, silent)
    assert not first.reused
    assert first.predicted_ms == 1.255343
    assert first.estimate is not None
    assert first.estimate.memory == DeviceMemory(1, 2, 3)
    assert (first.estimate.loaded, first.estimate.stored) == (15185860, 1245712)
    (layer,) = first.estimate.layers
    assert layer.kind == "convolution"
    assert layer.compute_ms == 144e-6
    assert sorted(file.name for file in first.path.iterdir()) == [
        "compile.log", "compiler_profile_0.txt.gz", "inputs.json", BMODEL_FILE, "skeleton.json",
        "weights.json",
    ]  # fmt: skip
    start = time.perf_counter()
    again = target.compile(one, weights, silent)
    assert time.perf_counter() - start < 1
    assert again.reused
    assert again.path == first.path


@pytest.mark.parametrize("what", ["precision", "batch", "graph"])
def test_what_makes_another_skeleton(
    what: str, target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    one = job(tmp_path, Size(64, 64))
    keys = [target.compile(one, weights, silent).key]
    other = {
        "precision": replace(one, precision="bf16"),
        "batch": job(tmp_path, Size(64, 64), batch=2),
        "graph": job(tmp_path, Size(64, 64), name="changed"),
    }[what]
    made = target.compile(other, weights, silent)
    assert not made.reused
    # Another precision is another thing to have; the rest is the same thing made again.
    assert made.why == "made for the first time" if what == "precision" else what in made.why
    assert made.key not in keys


def test_one_skeleton_serves_all_weights(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    first = target.compile(job(tmp_path, Size(64, 64)), weights, silent)
    assert first.weights_key is None
    again = target.compile(job(tmp_path, Size(64, 64)), Weights(random_values(1), "other"), silent)
    assert again.reused
    assert again.path == first.path
    assert target.find_skeleton(job(tmp_path, Size(64, 64)), "any") == first.path
    assert weights.was_read == []


def test_a_network_that_takes_no_other_weights_is_compiled_with_its_own(
    target: SophgoTarget, tmp_path: Path
) -> None:
    one = job(tmp_path, Size(64, 64), name="folded")
    with pytest.raises(InputError, match="compiled with its weights, which lie in several files"):
        target.compile(one, Weights(random_values(0), "weights"), silent)
    assert target.find_skeleton(one, "weights") is None
    weights = Weights(random_values(0), "weights", file_of(tmp_path, random_values(0)))
    events: list[Event] = []
    made = target.compile(one, weights, events.append)
    assert made.weights_key == "weights"
    assert any("2 of 2 packed weights are in no known form: kernel" in e.note for e in events)
    assert target.find_skeleton(one, "weights") == made.path
    assert target.find_skeleton(one, "others") is None


def test_the_key_covers_steps_and_importer_but_no_machine(
    fake_tpu_mlir: TpuMlir, tmp_path: Path
) -> None:
    text = recipe(CHIPS["bm1684x"], job(tmp_path, Size(64, 64)))
    assert "--struct-optimize" in text
    assert "class MappedConverter" in text
    assert str(fake_tpu_mlir.folder) not in text


def test_progress_rises_to_one(target: SophgoTarget, weights: Weights, tmp_path: Path) -> None:
    events: list[Event] = []
    target.compile(job(tmp_path, Size(64, 64)), weights, events.append)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 1
    assert len(set(done)) >= 6
    assert "1.255 ms on bm1684x" in events[-1].note


def test_a_failure_leaves_a_repro_folder_and_no_skeleton(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    with pytest.raises(ToolchainError) as error:
        target.compile(job(tmp_path, Size(64, 64), name="broken"), weights, silent)
    said = str(error.value)
    assert said.startswith("unet 64x64 f16 for bm1684x: importing the graph failed: RuntimeError: ")
    assert "Op not support:{'IsNaN'}" in said
    assert "\n" not in said
    command = said.rpartition("kept, '")[2].removesuffix("' does it again")
    again = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "RuntimeError: Op not support:{'IsNaN'}" in again.stderr
    repro = Path(shlex.split(command)[1]).parent
    assert repro.parent == tmp_path / "home" / "cache" / "failures"
    assert repro.name.startswith("bm1684x-unet-64x64-f16-")
    wanted = {"unet.onnx", "importer.py", "tape.py", "compile.log", "repro.sh", "versions.json"}
    assert wanted <= {file.name for file in repro.iterdir()}
    script = (repro / "repro.sh").read_text()
    assert "tape.py placeholders " in script
    assert script.count("model_deploy.py --mlir unet.mlir --quantize F16 --chip bm1684x") == 1
    assert json.loads((repro / "versions.json").read_text())["version"] == "1.30.2"
    assert not list((tmp_path / "home" / "cache" / "skeletons").glob("*/*"))


def test_what_does_not_fit_into_memory_is_refused_before_it_starts(
    target: SophgoTarget, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(tmp_path, Size(64, 64))
    memory = psutil.virtual_memory()._replace(available=100_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    events: list[Event] = []
    with pytest.raises(
        InputError, match=r"to compile unet 64x64 f16 needs about 0\.4 GB .* 0\.1 GB"
    ):
        target.compile(one, weights, events.append)
    assert [event.done for event in events] == [0.0]
    skeletons = tmp_path / "home" / "cache" / "skeletons"
    assert list(skeletons.iterdir()) == []


def test_what_the_system_killed_is_said_to_need_memory(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    with pytest.raises(ToolchainError, match="was killed, most likely for want of memory"):
        target.compile(job(tmp_path, Size(64, 64), name="large"), weights, silent)
    assert not (tmp_path / "home" / "cache" / "failures").exists()


def test_what_outgrows_the_machine_is_stopped_first(
    target: SophgoTarget, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = iter([10**10] * 2)  # enough before it begins
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: cls(next(rooms, 10**8), 2)))
    monkeypatch.setattr(machine, "memory_below", lambda _: 9 * 10**9)
    said = (
        r"was stopped before the memory of this machine was used up: it holds "
        r"9\.0 GB where 0\.4 GB were predicted, and 0\.1 GB are left: end other programs"
    )
    with pytest.raises(ToolchainError, match=said):
        target.compile(job(tmp_path, Size(64, 64), name="endless"), weights, silent)
    assert list((tmp_path / "home" / "cache" / "skeletons").iterdir()) == []


def test_a_bmodel_is_made_for_the_cores_of_its_target(
    fake_tpu_mlir: TpuMlir, weights: Weights, tmp_path: Path
) -> None:
    one, two = SophgoTarget("bm1688"), SophgoTarget("bm1688-2core")
    assert (two.name, two.chip) == ("bm1688-2core", "bm1688")
    mine, events = job(tmp_path, Size(64, 64)), list[Event]()
    skeletons = [target.compile(mine, weights, events.append) for target in (one, two)]
    told = [event.note for event in events if " ms on " in event.note]
    assert ["of 2 cores it uses 1" in note for note in told] == [False, True]
    assert skeletons[0].key != skeletons[1].key
    logs = [(skeleton.path / "compile.log").read_text() for skeleton in skeletons]
    assert ["--num_core 2" in log for log in logs] == [False, True]
    assert all("--chip bm1688 " in log for log in logs)
    (artifact,) = two.bind(skeletons[1:], weights, tmp_path, silent)
    assert (artifact.target, artifact.chip) == ("bm1688-2core", "bm1688")
    assert artifact.path == "bm1688-2core/unet_multisize.bmodel"


def test_what_has_no_emulator_says_why(
    fake_tpu_mlir: TpuMlir, weights: Weights, tmp_path: Path
) -> None:
    target = SophgoTarget("bm1690e-4core")
    assert target.cannot_run is not None
    skeleton = target.compile(job(tmp_path, Size(64, 64)), weights, silent)
    (artifact,) = target.bind([skeleton], weights, tmp_path, silent)
    with pytest.raises(ToolchainError, match="never ends for BM1690E on several cores"):
        target.open(artifact, tmp_path)


def test_what_the_compiler_calls_besides_must_be_there(
    fake_tpu_mlir: TpuMlir, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"needs cmake, make, cc, c\+\+ .* 'apt install cmake"):
        SophgoTarget("bm1690").compile(job(tmp_path, Size(64, 64)), weights, silent)


@pytest.mark.parametrize("chip", REFUSED)
def test_sophgos_other_chips_are_refused_with_the_reason(chip: str) -> None:
    with pytest.raises(InputError) as error:
        get_target(chip)
    said = str(error.value)
    assert said.startswith(f"{chip}: {REFUSED[chip]}: choose one of ")
    assert "bm1688-2core" in said


def test_a_lowered_network_with_other_ports_is_not_run(
    target: SophgoTarget, tmp_path: Path
) -> None:
    weights = Weights(random_values(0), "weights", file_of(tmp_path, random_values(0)))
    with pytest.raises(ToolchainError, match=r"takes .'sample'. and gives 1 tensors, where"):
        target.interpret(job(tmp_path, Size(64, 64)), weights, silent)
    assert list((tmp_path / "home" / "cache" / "lowered").iterdir()) == []


def test_default_precisions(target: SophgoTarget) -> None:
    components = ("text_encoder", "unet", "vae_encoder", "vae_decoder", "controlnet", "new")
    assert [target.default_precision(c) for c in components] == [
        "f32", "f16", "f16", "bf16", "f16", "f16",
    ]  # fmt: skip


def test_what_cannot_be_compiled_is_said_first(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    one = job(tmp_path, Size(64, 64))
    with pytest.raises(InputError, match="no precision 'f8': choose one of f32, f16, bf16"):
        target.compile(replace(one, precision="f8"), weights, silent)
    with pytest.raises(InputError, match="unknown Sophgo chip 'bm9': choose one of bm1684x"):
        SophgoTarget("bm9")


def test_nothing_works_before_the_toolchain_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match="run 'sdconv toolchain install tpu-mlir'"):
        SophgoTarget().compile(job(tmp_path, Size(64, 64)), weights, silent)


def test_only_the_importer_sees_the_weights_file(fake_tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    data = tmp_path / "model.onnx.data"
    plan = steps(fake_tpu_mlir, CHIPS["bm1684x"], job(tmp_path, Size(64, 64)), data)
    assert data in plan[0].argv
    assert all(data not in step.argv for step in plan[1:])
    assert np.all(np.diff([step.until for step in plan]) > 0)
    made = steps(fake_tpu_mlir, CHIPS["bm1684x"], job(tmp_path, Size(64, 64)), data, 1000)
    assert made[0].argv[-2:] == [data, "1000"]
    assert [step.argv for step in made[1:]] == [step.argv for step in plan]
