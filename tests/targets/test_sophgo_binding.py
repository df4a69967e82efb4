"""Weights bound to skeletons of the fake compiler: stages, sharing, what is written."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from converter.cache import SKELETONS, Cache
from converter.errors import InputError
from converter.progress import Event, silent
from converter.sizes import Size
from targets.base import Skeleton, ToolchainError
from targets.skeletons import export_skeletons, import_skeletons
from targets.sophgo.binding import stage_record
from targets.sophgo.bmodel.reading import read_bmodel, stages
from targets.sophgo.record import StageRecord
from targets.sophgo.target import SophgoTarget
from tests.targets.sophgo_jobs import Weights, file_of, half, job, random_values, region_of

SIZES = (Size(64, 64), Size(128, 64))


def compiled(target: SophgoTarget, weights: Weights, folder: Path, *sizes: Size) -> list[Skeleton]:
    return [target.compile(job(folder, size), weights, silent) for size in sizes]


def interrupt(event: Event) -> None:
    raise KeyboardInterrupt


def test_a_skeleton_holds_no_weights_and_takes_any(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    (skeleton,) = compiled(target, weights, tmp_path, SIZES[0])
    with pytest.raises(InputError, match="left out of this file"):
        region_of(skeleton.path / "model.bmodel")
    for seed in (0, 1):
        mine = Weights(random_values(seed), f"weights {seed}")
        (artifact,) = target.bind([skeleton], mine, tmp_path / str(seed), silent)
        bmodel = tmp_path / str(seed) / artifact.path
        assert artifact.how == "bound"
        assert region_of(bmodel) == half(random_values(seed))
        ((_, stage),) = stages(read_bmodel(bmodel).model)
        assert stage.coeff_mem is not None
        assert stage.coeff_mem.check_code == hashlib.sha256(region_of(bmodel)).digest()


def test_sizes_become_stages_of_one_file(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    artifacts = target.bind(skeletons, weights, tmp_path / "out", silent)
    assert {a.path for a in artifacts} == {"bm1684x/unet_multisize.bmodel"}
    assert [str(a.size) for a in artifacts] == ["64x64", "128x64"]
    assert all((tmp_path / "out" / file).is_file() for a in artifacts for file in a.files)
    packed = tmp_path / "out" / artifacts[0].path
    assert len(list(stages(read_bmodel(packed).model))) == 2
    assert stage_record(packed, artifacts[1].key).inputs[0].shape == (1, 4, 8, 16)
    assert stage_record(packed, artifacts[1].key).inputs[1].dtype == "int32"
    with pytest.raises(ToolchainError, match="no stage"):
        stage_record(packed, "another")


def test_sizes_that_keep_the_weights_alike_share_them(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    artifacts = target.bind(compiled(target, weights, tmp_path, *SIZES), weights, tmp_path, silent)
    packed = tmp_path / artifacts[0].path
    assert len(read_bmodel(packed).weights) == 1
    assert region_of(packed, 0) == region_of(packed, 1) == half(random_values(0))
    assert weights.was_read == ["kernel", "bias"]


def test_the_stage_that_needs_most_memory_comes_first(
    target: SophgoTarget,
    weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    record = StageRecord.load(skeletons[1].path)
    memory = record.device_memory.__class__(weights=1, instructions=1, runtime=1000)
    (skeletons[1].path / "skeleton.json").chmod(0o644)
    record.__class__(**{**record.__dict__, "device_memory": memory}).save(skeletons[1].path)
    packed = tmp_path / target.bind(skeletons, weights, tmp_path, silent)[0].path
    widths = [s.input_tensor[0].shape[0].dim[-1] for _, s in stages(read_bmodel(packed).model)]
    assert widths == [16, 8]


def test_binding_again_writes_nothing(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    before = target.bind(skeletons, weights, tmp_path, silent)
    packed = tmp_path / before[0].path
    stat = packed.stat()
    weights.was_read.clear()
    assert target.bind(skeletons, weights, tmp_path, silent) == before
    assert packed.stat() == stat
    assert weights.was_read == []
    one = target.bind(skeletons[:1], weights, tmp_path, silent)
    assert one[0].blake3 != before[0].blake3


def test_only_what_changed_is_written(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    weights.tensor_keys = {"kernel": "k", "bias": "b"}
    target.bind(skeletons, weights, tmp_path, silent)
    arrays = {**random_values(0), "bias": random_values(1)["bias"]}
    scaled = Weights(arrays, "scaled")
    scaled.tensor_keys = {"kernel": "k", "bias": "b at another scale"}
    packed = tmp_path / target.bind(skeletons, scaled, tmp_path, silent)[0].path
    assert scaled.was_read == ["bias"]
    fresh = Weights(arrays, "scaled")
    whole = tmp_path / "fresh" / target.bind(skeletons, fresh, tmp_path / "fresh", silent)[0].path
    assert packed.read_bytes() == whole.read_bytes()


def test_a_size_is_added_without_packing_a_weight(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    weights.tensor_keys = {"kernel": "k", "bias": "b"}
    (before,) = target.bind(skeletons[:1], weights, tmp_path, silent)
    old = (tmp_path / before.path).read_bytes()
    weights.was_read.clear()
    with pytest.raises(KeyboardInterrupt):
        target.bind(skeletons, weights, tmp_path, interrupt)
    assert (tmp_path / before.path).read_bytes() == old
    assert stage_record(tmp_path / before.path, before.key).network == "unet"
    both = target.bind(skeletons, weights, tmp_path, silent)
    assert weights.was_read == []
    # The verdict on the first size stands: what it computes is what it computed.
    assert both[0].blake3 != before.blake3
    assert both[0].computes == before.computes != both[1].computes
    fresh = target.bind(skeletons, weights, tmp_path / "fresh", silent)
    assert (tmp_path / both[0].path).read_bytes() == (
        tmp_path / "fresh" / fresh[0].path
    ).read_bytes()
    (again,) = target.bind(skeletons[:1], weights, tmp_path, silent)
    assert weights.was_read == ["kernel", "bias"]  # by the fresh one
    assert (tmp_path / again.path).read_bytes() == old


@pytest.mark.parametrize("lost", ["the skeleton", "the planned header"])
def test_weights_are_packed_again_where_it_is_unknown_where_they_lie(
    lost: str, target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    weights.tensor_keys = {"kernel": "k", "bias": "b"}
    (artifact,) = target.bind(skeletons[:1], weights, tmp_path, silent)
    if lost == "the skeleton":
        shutil.rmtree(skeletons[0].path)
        skeletons = skeletons[1:]
    else:
        packed = tmp_path / artifact.path
        stat = packed.stat()
        with packed.open("r+b") as file:
            file.seek(len(read_bmodel(packed).header) - 1)
            file.write(b"x")
        os.utime(packed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    weights.was_read.clear()
    target.bind(skeletons, weights, tmp_path, silent)
    assert weights.was_read == ["kernel", "bias"]


def test_a_file_that_somebody_touched_is_written_anew(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, SIZES[0])
    weights.tensor_keys = {"kernel": "k", "bias": "b"}
    packed = tmp_path / target.bind(skeletons, weights, tmp_path, silent)[0].path
    good = packed.read_bytes()
    packed.write_bytes(bytes(len(good)))
    os.utime(packed, ns=(1, 1))
    target.bind(skeletons, weights, tmp_path, silent)
    assert packed.read_bytes() == good


def test_a_killed_write_leaves_no_file(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = compiled(target, weights, tmp_path, SIZES[0])
    with pytest.raises(KeyboardInterrupt):
        target.bind(skeletons, weights, tmp_path / "out", interrupt)
    assert list((tmp_path / "out" / "bm1684x").iterdir()) == []


def test_a_bmodel_with_its_own_weights_is_a_stage_like_others(
    target: SophgoTarget, tmp_path: Path
) -> None:
    arrays = random_values(0)
    weights = Weights(arrays, "weights", file_of(tmp_path, arrays))
    folded = target.compile(job(tmp_path, SIZES[0], name="folded"), weights, silent)
    bound = target.compile(job(tmp_path, SIZES[1]), weights, silent)
    artifacts = target.bind([folded, bound], weights, tmp_path, silent)
    assert [a.how for a in artifacts] == ["compiled with weights", "bound"]
    packed = tmp_path / artifacts[0].path
    assert region_of(packed, 0) == half({n: a * 1.5 for n, a in arrays.items()})
    assert region_of(packed, 1) == half(arrays)
    with pytest.raises(ValueError, match="compiled with other weights"):
        target.bind([folded], Weights(arrays, "others"), tmp_path, silent)


def test_another_machine_needs_no_toolchain(
    target: SophgoTarget,
    weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skeletons = compiled(target, weights, tmp_path, *SIZES)
    here = target.bind(skeletons, weights, tmp_path / "here", silent)
    archive = tmp_path / "unet.tar.xz"
    export_skeletons([skeleton.path for skeleton in skeletons], archive)
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(ToolchainError, match="sdconv toolchain install"):
        compiled(target, weights, tmp_path, *SIZES)
    taken = import_skeletons(archive)
    assert taken == Cache(SKELETONS).entries()
    there = target.bind(
        compiled(target, weights, tmp_path, *SIZES), weights, tmp_path / "there", silent
    )
    assert [a.blake3 for a in there] == [a.blake3 for a in here]
    assert import_skeletons(archive) == taken  # they stay as they are


def test_a_file_lies_where_its_consumer_opens_it(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    skeletons = [
        replace(skeleton, job=replace(skeleton.job, file="multilize/unet_multize"))
        for skeleton in compiled(target, weights, tmp_path, *SIZES)
    ]
    artifacts = target.bind(skeletons, weights, tmp_path / "out", silent)
    assert {a.path for a in artifacts} == {"multilize/unet_multize.bmodel"}
    assert artifacts[0].files == ("multilize/unet_multize.json",)
    assert (tmp_path / "out" / artifacts[0].path).is_file()


def test_a_crash_of_the_emulator_is_one_line(
    target: SophgoTarget, weights: Weights, tmp_path: Path
) -> None:
    artifact = target.bind(
        compiled(target, weights, tmp_path, SIZES[0]), weights, tmp_path, silent
    )[0]
    with pytest.raises(ToolchainError, match="the chip emulator stopped: ASSERT info: wrong gdma"):
        target.open(artifact, tmp_path)
