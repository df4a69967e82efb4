"""The Sophgo target around a fake compiler: cache, repro folder, file names, records, refusals."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.errors import InputError
from converter.files import sha256_of
from converter.progress import Event, silent
from converter.sizes import Size
from converter.weights import Array, TensorSpec
from targets.base import CompileJob, Skeleton, ToolchainError
from targets.sophgo.chips import CHIPS
from targets.sophgo.compilation import BMODEL_FILE, recipe, steps
from targets.sophgo.packing import file_stem, stage_record
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir

GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
{name} (float[batch, 4, h, w] sample, int64[1, 77] tokens) => (float[batch, 4, h, w] noise_pred)
{{
    shape = Shape (sample)
    same = Reshape (sample, shape)
    noise_pred = Mul (same, same)
}}
"""


class FileWeights:
    """A WeightSource of no tensors in an empty file."""

    def __init__(self, file: Path | None, key: str = "weights") -> None:
        self.file = file
        self.key = key

    def names(self) -> Sequence[str]:
        return ()

    def spec(self, name: str) -> TensorSpec:
        raise KeyError(name)

    def read(self, name: str) -> Array:
        raise KeyError(name)


@pytest.fixture
def weights(tmp_path: Path) -> FileWeights:
    file = tmp_path / "model.onnx.data"
    file.write_bytes(bytes(64))
    return FileWeights(file)


@pytest.fixture
def target(fake_tpu_mlir: TpuMlir) -> SophgoTarget:
    return SophgoTarget()


def job(folder: Path, size: Size, *, name: str = "unet", batch: int = 1) -> CompileJob:
    graph = folder / f"{name}.onnx"
    onnx.save(onnx.parser.parse_model(GRAPH.format(name=name)), graph)
    shapes = (("sample", (batch, 4, size.height // 8, size.width // 8)), ("tokens", (1, 77)))
    return CompileJob("unet", graph, sha256_of(graph), shapes, size, batch, "f16")


def test_a_job_is_compiled_once(target: SophgoTarget, weights: FileWeights, tmp_path: Path) -> None:
    one = job(tmp_path, Size(128, 64))
    first = target.compile(one, weights, silent)
    assert not first.reused
    assert first.predicted_ms == 1.255343
    assert sorted(file.name for file in first.path.iterdir()) == [
        "compile.log", "compiler_profile_0.txt", "final.mlir", "inputs.json", BMODEL_FILE,
        "skeleton.json",
    ]  # fmt: skip
    start = time.perf_counter()
    again = target.compile(one, weights, silent)
    assert time.perf_counter() - start < 1
    assert again.reused
    assert again.path == first.path


@pytest.mark.parametrize("what", ["weights", "precision", "batch", "graph"])
def test_what_makes_another_skeleton(
    what: str, target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    one = job(tmp_path, Size(64, 64))
    keys = [target.compile(one, weights, silent).key]
    if what == "weights":
        weights.key = "others"
    other = {
        "precision": replace(one, precision="bf16"),
        "batch": job(tmp_path, Size(64, 64), batch=2),
        "graph": job(tmp_path, Size(64, 64), name="changed"),
    }.get(what, one)
    made = target.compile(other, weights, silent)
    assert not made.reused
    # Another precision is another thing to have; the rest is the same thing made again.
    assert made.why == "made for the first time" if what == "precision" else what in made.why
    assert made.key not in keys


def test_the_key_covers_steps_and_importer_but_no_machine(fake_tpu_mlir: TpuMlir) -> None:
    text = recipe(CHIPS["bm1684x"])
    assert "--struct-optimize" in text
    assert "class MappedConverter" in text
    assert str(fake_tpu_mlir.folder) not in text


def test_progress_rises_to_one(target: SophgoTarget, weights: FileWeights, tmp_path: Path) -> None:
    events: list[Event] = []
    target.compile(job(tmp_path, Size(64, 64)), weights, events.append)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 1
    assert len(set(done)) >= 6
    assert "1.255 ms on bm1684x" in events[-1].note


def test_a_failure_leaves_a_repro_folder_and_no_skeleton(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    with pytest.raises(ToolchainError) as error:
        target.compile(job(tmp_path, Size(64, 64), name="broken"), weights, silent)
    said = str(error.value)
    assert said.startswith("unet 64x64 f16 for bm1684x: importing the graph failed: RuntimeError: ")
    assert "Op not support:{'IsNaN'}" in said
    assert "\n" not in said
    repro = Path(said.rpartition(" ")[2])
    assert repro.parent == tmp_path / "home" / "cache" / "failures"
    assert {"unet.onnx", "importer.py", "compile.log", "repro.sh", "versions.json"} <= {
        file.name for file in repro.iterdir()
    }
    script = (repro / "repro.sh").read_text()
    assert script.count("model_deploy.py --mlir unet.mlir --quantize F16 --chip bm1684x") == 1
    assert json.loads((repro / "versions.json").read_text())["version"] == "1.30.2"
    assert not list((tmp_path / "home" / "cache" / "skeletons").glob("*/*"))


def compiled(
    target: SophgoTarget, weights: FileWeights, folder: Path, *sizes: Size
) -> list[Skeleton]:
    return [target.compile(job(folder, size), weights, silent) for size in sizes]


def test_sizes_become_stages_of_one_file_under_the_name_that_hosts_open(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, Size(64, 64), Size(128, 64))
    artifacts = target.bind(skeletons, weights, tmp_path / "out")
    assert {a.path for a in artifacts} == {"bm1684x/sdv15_unet_multisize.bmodel"}
    assert [str(a.size) for a in artifacts] == ["64x64", "128x64"]
    assert all((tmp_path / "out" / file).is_file() for a in artifacts for file in a.files)
    packed = tmp_path / "out" / artifacts[0].path
    assert len(packed.read_text().splitlines()) == 2
    assert stage_record(packed, artifacts[1].key).inputs[0].shape == (1, 4, 8, 16)
    assert stage_record(packed, artifacts[1].key).inputs[1].dtype == "int32"


def test_the_stage_that_needs_most_memory_comes_first(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, Size(64, 64), Size(128, 64))
    record = json.loads((skeletons[1].path / "skeleton.json").read_text())
    record["device_memory"]["runtime"] = 1000
    (skeletons[1].path / "skeleton.json").write_text(json.dumps(record))
    packed = tmp_path / target.bind(skeletons, weights, tmp_path)[0].path
    first, second = packed.read_text().splitlines()
    assert first == (skeletons[1].path / BMODEL_FILE).read_text()
    assert second == (skeletons[0].path / BMODEL_FILE).read_text()


def test_binding_again_writes_nothing(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, Size(64, 64), Size(128, 64))
    before = target.bind(skeletons, weights, tmp_path)
    packed = tmp_path / before[0].path
    stat = packed.stat()
    assert target.bind(skeletons, weights, tmp_path) == before
    assert packed.stat().st_ino == stat.st_ino
    one = target.bind(skeletons[:1], weights, tmp_path)
    assert packed.samefile(skeletons[0].path / BMODEL_FILE)
    assert one[0].sha256 != before[0].sha256


def test_skeletons_of_other_weights_are_refused(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, Size(64, 64))
    with pytest.raises(ValueError, match="compiled with other weights"):
        target.bind(skeletons, FileWeights(None, "others"), tmp_path)


@pytest.mark.parametrize(
    ("component", "stem"),
    [
        ("text_encoder", "sdv15_text"),
        ("unet", "sdv15_unet_multisize"),
        ("vae_decoder", "sdv15_vd_multisize"),
        ("vae_encoder", "sdv15_ve_multisize"),
        ("controlnet", "sdv15_cn_multisize"),
    ],
)
def test_the_original_file_names(component: str, stem: str) -> None:
    assert file_stem(component) == stem


def test_default_precisions(target: SophgoTarget) -> None:
    components = ("text_encoder", "unet", "vae_encoder", "vae_decoder", "controlnet", "new")
    assert [target.default_precision(c) for c in components] == [
        "f32", "f16", "f16", "bf16", "f16", "f16",
    ]  # fmt: skip


def test_what_cannot_be_compiled_is_said_first(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    one = job(tmp_path, Size(64, 64))
    with pytest.raises(InputError, match="no precision 'int8': choose one of f32, f16, bf16"):
        target.compile(replace(one, precision="int8"), weights, silent)
    with pytest.raises(InputError, match="not in a file"):
        target.compile(one, FileWeights(None), silent)
    with pytest.raises(InputError, match="unknown Sophgo chip 'bm9': choose one of bm1684x"):
        SophgoTarget("bm9")


def test_nothing_works_before_the_toolchain_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: FileWeights
) -> None:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match="run 'sdconv toolchain install tpu-mlir'"):
        SophgoTarget().compile(job(tmp_path, Size(64, 64)), weights, silent)


def test_a_crash_of_the_emulator_is_one_line(
    target: SophgoTarget, weights: FileWeights, tmp_path: Path
) -> None:
    artifact = target.bind(compiled(target, weights, tmp_path, Size(64, 64)), weights, tmp_path)[0]
    with pytest.raises(ToolchainError, match="the chip emulator stopped: ASSERT info: wrong gdma"):
        target.open(artifact, tmp_path)


def test_only_the_importer_sees_the_weights_file(fake_tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    data = tmp_path / "model.onnx.data"
    plan = steps(fake_tpu_mlir, CHIPS["bm1684x"], job(tmp_path, Size(64, 64)), data)
    assert data in plan[0].argv
    assert all(data not in step.argv for step in plan[1:])
    assert np.all(np.diff([step.until for step in plan]) > 0)
