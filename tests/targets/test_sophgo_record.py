"""Reading the compiler's reports, and the time that the emulator is expected to take."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.base import DeviceMemory, ToolchainError
from targets.driver import PortAt, ordered_inputs
from targets.sophgo.emulation_time import emulation_seconds
from targets.sophgo.emulator import check_stage
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.record import PROFILE_FILE, RECORD_FILE, CycleModel, StageRecord, device_memory
from targets.sophgo.timeline import Timeline
from tests.targets.fake_compiler import PROFILE

INFO = """\
net 0: [unet]  static
stage 0, core num: 1
device mem size: 17722624 (weight: 15618048, instruct: 1527040, runtime: 577536)
host mem size: 0 (weight: 0, runtime: 0)
"""

RECORD = StageRecord(
    network="unet",
    inputs=(PortAt("sample", "float32", (1, 4, 8, 8)), PortAt("tokens", "int32", (1, 77))),
    outputs=(PortAt("noise_pred", "float32", (1, 4, 8, 8)),),
    precision="f16",
    cycle_model=CycleModel.parse(PROFILE.splitlines()),
    device_memory=device_memory(INFO),
    timeline=Timeline.read(PROFILE.splitlines()),
)


def test_the_summary_of_a_profile() -> None:
    model = CycleModel.parse(PROFILE.splitlines())
    assert model.runtime_ms == 1.255343
    assert model.flops == 126177152
    assert (model.cycles, model.computes, model.moves) == (1255343, 11580, 1452)
    assert (model.loaded, model.stored) == (15185860, 1245712)


def test_parts_of_a_network_add_up() -> None:
    twice = CycleModel.parse([*PROFILE.splitlines()] * 2)
    assert twice.runtime_ms == pytest.approx(2 * 1.255343)
    assert twice.loaded == 2 * 15185860


def test_the_slowest_core_counts_and_all_of_them_move_data(tmp_path: Path) -> None:
    slower = PROFILE.replace("1.255343ms", "1.5ms").replace("S2L:15185860", "S2L:40")
    for number, profile in enumerate((PROFILE, slower)):
        (tmp_path / f"compiler_profile_{number}.txt").write_text(profile)
    graph = StaticGraph(tmp_path, "", RECORD.inputs, RECORD.outputs)
    record = StageRecord.of("unet", graph, "f16", tmp_path, INFO)
    assert record.cores == 2
    model = record.cycle_model
    assert model.runtime_ms == 1.5
    assert model.flops == 126177152
    assert (model.computes, model.loaded, model.stored) == (11580, 15185900, 2 * 1245712)
    with pytest.raises(OSError, match=PROFILE_FILE):
        StageRecord.of("unet", graph, "f16", tmp_path / "nothing", INFO)


def test_a_report_without_a_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="no summary"):
        CycleModel.parse(PROFILE.replace("runtime:", "time:").splitlines())
    with pytest.raises(ValueError, match="no device memory"):
        device_memory("device mem size: 3")


def test_device_memory() -> None:
    assert device_memory(INFO) == DeviceMemory(15618048, 1527040, 577536)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    assert StageRecord.load(tmp_path) == RECORD


def test_an_earlier_versions_record_is_completed_from_its_profile(tmp_path: Path) -> None:
    older = {name: v for name, v in RECORD.to_json().items() if name != "timeline"}
    (tmp_path / RECORD_FILE).write_text(json.dumps(older))
    with gzip.open(tmp_path / f"{PROFILE_FILE}.gz", "wt") as packed:
        packed.write(PROFILE)
    assert StageRecord.load(tmp_path).estimate is None
    assert StageRecord.load(tmp_path).with_timeline(tmp_path) == RECORD


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no gzip", gzip.compress(b"no profile")],
    ids=["none", "empty", "no gzip", "no profile"],  # the same in every worker
)
def test_where_that_cannot_be_read_there_is_no_estimate(
    content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / f"{PROFILE_FILE}.gz").write_bytes(content)
    older = replace(RECORD, timeline=None)
    assert older.with_timeline(tmp_path) == older
    assert older.estimate is None


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_more_work_takes_the_emulator_longer(precision: str) -> None:
    def seconds(flops: int, computes: int) -> float:
        model = replace(RECORD.cycle_model, flops=flops, computes=computes)
        return emulation_seconds(replace(RECORD, precision=precision, cycle_model=model))

    assert 0 < seconds(10**8, 10**4) < seconds(2 * 10**8, 10**4) < seconds(2 * 10**8, 2 * 10**4)


def test_inputs_are_ordered_by_port_and_checked() -> None:
    sample, tokens = np.zeros((1, 4, 8, 8), np.float32), np.zeros((1, 77), np.int32)
    ordered = ordered_inputs({"tokens": tokens, "sample": sample}, RECORD.inputs)
    assert [array.dtype.name for array in ordered] == ["float32", "int32"]
    with pytest.raises(ValueError, match=r"tokens: int32 .* expected, int64 .* given"):
        ordered_inputs({"sample": sample, "tokens": tokens.astype(np.int64)}, RECORD.inputs)
    with pytest.raises(ValueError, match=r"tokens: .* expected, nothing given; more: nothing"):
        ordered_inputs({"sample": sample, "more": sample}, RECORD.inputs)


def test_a_file_without_the_stage_is_refused(tmp_path: Path) -> None:
    stage = {
        "inputs": [
            {"shape": [1, 4, 8, 8], "dtype": "float32"},
            {"shape": [1, 77], "dtype": "int32"},
        ],
        "outputs": [{"shape": [1, 4, 8, 8], "dtype": "float32"}],
    }
    other = {**stage, "outputs": [{"shape": [1, 4, 16, 8], "dtype": "float32"}]}
    check_stage({"network": "unet", "stages": [other, stage]}, RECORD, tmp_path)
    for wrong in ({"network": "unet", "stages": [other]}, {"network": "vae", "stages": [stage]}):
        with pytest.raises(ToolchainError, match="run the same compile again"):
            check_stage(wrong, RECORD, tmp_path)
