"""Precisions that need calibration, and tables of single operations, around a fake compiler."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.errors import InputError
from converter.progress import Event, silent
from converter.sizes import Size
from targets.base import CompileJob, QuantizeTable, Skeleton, ToolchainError
from targets.calibration import CalibrationData
from targets.sophgo.precisions import PRECISIONS, modes_of
from targets.sophgo.tables import CALIBRATION_TABLE, QUANTIZE_TABLE
from targets.sophgo.target import SophgoTarget
from tests.targets.sophgo_jobs import Weights, file_of, job, random_values


def data(folder: Path, *values: float) -> CalibrationData:
    folder.mkdir()
    for number, value in enumerate(values):
        sample = np.full((1, 4, 8, 8), value, np.float32)
        sample[0, 0, 0, 0] = -1
        np.savez(folder / f"{number:04d}.npz", sample=sample, tokens=np.zeros((1, 77), np.int64))
    return CalibrationData.of(folder)


@pytest.fixture
def one(tmp_path: Path) -> CompileJob:
    calibration = data(tmp_path / "data", 1.0, 2.0)
    wanted = job(tmp_path, Size(64, 64))
    return replace(wanted, precision="int8-mixed", calibration=calibration)


@pytest.fixture
def held(tmp_path: Path) -> Weights:
    return Weights(random_values(0), "weights", file_of(tmp_path, random_values(0)))


def compiled(target: SophgoTarget, one: CompileJob, held: Weights) -> tuple[Skeleton, list[str]]:
    events: list[Event] = []
    skeleton = target.compile(one, held, events.append)
    return skeleton, [event.note for event in events if event.note]


def test_int8_is_compiled_with_its_weights_at_once(
    target: SophgoTarget, one: CompileJob, held: Weights, tmp_path: Path
) -> None:
    skeleton, notes = compiled(target, one, held)
    assert skeleton.weights_key == held.key
    assert "compiled with its weights, for others do not fit it: the scales of INT8" in notes[0]
    assert len([*(tmp_path / "home" / "cache" / "skeletons").iterdir()]) == 1
    table = (skeleton.path / CALIBRATION_TABLE).read_text().splitlines()
    assert table[1] == "sample 2 -1 2"
    log = (skeleton.path / "compile.log").read_text()
    assert "--quantize INT8 " in log
    assert f"--calibration_table {CALIBRATION_TABLE} --matmul_perchannel" in log
    assert f"--quantize_table {QUANTIZE_TABLE}" in log
    assert compiled(target, one, held)[0].reused
    assert target.find_skeleton(one, held.key) == skeleton.path
    assert target.find_skeleton(one, "others") is None


def test_int8_is_for_batch_1(target: SophgoTarget, one: CompileJob, held: Weights) -> None:
    with pytest.raises(InputError, match="calibrates networks of batch 1 only: compile with -b 1"):
        target.compile(replace(one, batch=2), held, silent)


def test_other_data_make_another_skeleton(
    target: SophgoTarget, one: CompileJob, held: Weights, tmp_path: Path
) -> None:
    first, _ = compiled(target, one, held)
    alike = replace(one, calibration=data(tmp_path / "same", 1.0, 2.0))
    assert compiled(target, alike, held)[0].path == first.path
    other = replace(one, calibration=data(tmp_path / "other", 1.0, 3.0))
    assert compiled(target, other, held)[0].why == "made again: calibration changed"
    assert target.find_skeleton(replace(one, precision="int8"), held.key) is None


def test_a_mixed_network_gets_both_tables(
    target: SophgoTarget, one: CompileJob, held: Weights
) -> None:
    skeleton, _ = compiled(target, one, held)
    assert (skeleton.path / QUANTIZE_TABLE).read_text().splitlines() == [
        "# op_name quantize_mode", "sample F16", "squared_MatMul F16", "first F16",
    ]  # fmt: skip
    answer = held.read("kernel").reshape(6, 4) @ [[-1, 2], [2, 2], [2, 2], [2, 2]]
    reach = 2 * np.abs(answer + held.read("bias")[:, None]).max()
    lines = (skeleton.path / CALIBRATION_TABLE).read_text().splitlines()
    name, *numbers = lines[2].split()
    assert name == "noise_pred_Conv"
    np.testing.assert_allclose(np.array(numbers, float), [reach, -reach, reach], rtol=1e-5)


def test_all_in_int8_needs_the_range_of_everything(
    target: SophgoTarget, one: CompileJob, held: Weights
) -> None:
    with pytest.raises(ToolchainError, match="no range is known of squared_MatMul, first, which"):
        target.compile(replace(one, precision="int8"), held, silent)


def test_a_table_of_the_users(target: SophgoTarget, weights: Weights, tmp_path: Path) -> None:
    plain = job(tmp_path, Size(64, 64))
    table = tmp_path / "table.txt"
    table.write_text("# op_name quantize_mode\nconvolved f32  # it overflows\n\n")
    assert not target.needs_calibration("f16", QuantizeTable(table, "1"))
    one = replace(plain, quantize_table=QuantizeTable(table, "1"))
    first = target.compile(one, weights, silent)
    assert first.weights_key is None  # no scale in it: any weights can be bound
    assert (first.path / QUANTIZE_TABLE).read_text() == table.read_text()
    assert "--quantize F16" in (first.path / "compile.log").read_text()
    table.write_text("convolved INT8\n")
    assert target.needs_calibration("f16", QuantizeTable(table, "2"))
    again = replace(plain, quantize_table=QuantizeTable(table, "2"))
    assert target.compile(again, weights, silent).why == "made again: table changed"
    with pytest.raises(InputError, match=r"int8-mixed chooses .* itself: write int8 beside"):
        target.needs_calibration("int8-mixed", QuantizeTable(table, "2"))


@pytest.mark.parametrize("line", ["convolved", "convolved int3", "two words F16"])
def test_what_is_no_table_is_refused(line: str, tmp_path: Path) -> None:
    table = tmp_path / "table.txt"
    table.write_text(f"good F16\n{line}\n")
    with pytest.raises(InputError, match=r"table.txt, line 2: not an operation and one of F32"):
        modes_of(table)


def test_bytes_per_weight() -> None:
    told = {name: (p.weight_bytes, p.matrix_bytes) for name, p in PRECISIONS.items()}
    assert told["f32"] == (4, 4)
    assert told["bf16"] == (2, 2)
    assert told["w8f16"] == (2, 1 + 3 / 64)  # a scale of two bytes and a zero point for 64
    assert told["w4bf16"] == (2, 0.5 + 3 / 64)
    assert told["int8"] == (1, 1)
    assert told["int8-mixed"] == (1.115, 1.115)  # 0.97 GB for 860 million
