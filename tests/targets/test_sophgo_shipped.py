"""Skeletons that ship with the program: with the compiler, without it, and those that really do."""

import shutil
from pathlib import Path

import pytest

from converter.progress import silent
from converter.sizes import Size
from targets.base import CompileJob, ToolchainError
from targets.sophgo import shipped
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.compilation import BMODEL_FILE
from targets.sophgo.shipping import CHIP, SIZES, ship, shipped_jobs
from targets.sophgo.target import SHIPPED, SHIPPED_WITHOUT_KERNEL, SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from tests.targets.sophgo_jobs import Weights, half, job, random_values, region_of

KERNEL = b"kernel" * 1000
"""What the fake compiler puts into its files."""


@pytest.fixture
def one(tmp_path: Path) -> CompileJob:
    return job(tmp_path, Size(64, 64))


@pytest.fixture
def compiled(
    target: SophgoTarget, one: CompileJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """The skeleton as it was compiled. It ships now, and the cache is empty."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "of an earlier version.tar.xz").touch()
    ship(target, [one], "a network", folder, silent)
    assert len([*folder.iterdir()]) == 2
    monkeypatch.setattr(shipped, "FOLDER", folder)
    content = (target.skeleton(one, silent).path / BMODEL_FILE).read_bytes()
    shutil.rmtree(tmp_path / "home" / "cache")
    return content


def bound(
    target: SophgoTarget, one: CompileJob, weights: Weights, folder: Path
) -> tuple[str, Path]:
    """Why a skeleton is what it is, and the bmodel made of it."""
    skeleton = target.compile(one, weights, silent)
    (artifact,) = target.bind([skeleton], weights, folder, silent)
    return skeleton.why, folder / artifact.path


def test_without_the_compiler(
    compiled: bytes, fake_tpu_mlir: TpuMlir, one: CompileJob, tmp_path: Path
) -> None:
    hidden = fake_tpu_mlir.folder.rename(tmp_path / "not installed")
    target, values = SophgoTarget(), random_values(1)
    with pytest.raises(ToolchainError):
        target.check_ready()
    assert target.made_without == "a network"
    found = target.find_skeleton(one, "any")
    assert found is not None
    why, path = bound(target, one, Weights(values, "weights"), tmp_path)
    assert why == SHIPPED_WITHOUT_KERNEL
    assert read_bmodel(path).kernel is None
    assert region_of(path) == half(values)
    assert not (found.parents[1] / "graphs").exists()  # the index spares it
    # With the compiler there, the same command makes the file whole.
    hidden.rename(fake_tpu_mlir.folder)
    (fake_tpu_mlir.libraries / "kernel.so").write_bytes(KERNEL)
    why, path = bound(target, one, Weights(values, "weights"), tmp_path)
    kernel = read_bmodel(path).kernel
    assert why == SHIPPED
    assert kernel is not None
    assert read_bmodel(path).bytes_of(kernel) == KERNEL


def test_with_the_compiler_it_is_what_compiling_gives(
    compiled: bytes, fake_tpu_mlir: TpuMlir, target: SophgoTarget, one: CompileJob
) -> None:
    (fake_tpu_mlir.libraries / "kernel.so").write_bytes(KERNEL)
    made = target.skeleton(one, silent)
    assert made.why == SHIPPED
    assert (made.path / BMODEL_FILE).read_bytes() == compiled
    assert target.skeleton(one, silent).reused
    assert not (made.path.parents[1] / "graphs").exists()  # neither time


def test_another_kernel_module_is_not_taken(
    compiled: bytes, fake_tpu_mlir: TpuMlir, target: SophgoTarget, one: CompileJob
) -> None:
    (fake_tpu_mlir.libraries / "kernel.so").write_bytes(b"of another version")
    assert target.skeleton(one, silent).why == SHIPPED_WITHOUT_KERNEL


def test_what_does_not_ship_is_compiled(
    compiled: bytes, target: SophgoTarget, tmp_path: Path
) -> None:
    other = job(tmp_path, Size(128, 64))
    assert target.find_skeleton(other, "any") is None
    assert target.skeleton(other, silent).why == "made for the first time"


def test_after_a_change_of_the_passes_the_graph_decides(
    compiled: bytes, target: SophgoTarget, one: CompileJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "passes_hash", lambda: "changed")
    assert target.find_skeleton(one, "any") is None
    assert target.skeleton(one, silent).why == SHIPPED_WITHOUT_KERNEL
    assert target.find_skeleton(one, "any") is not None


def test_sd15_ships_for_every_size_of_the_field(tmp_path: Path) -> None:
    """After a change of passes, steps or toolchain: ``python -m targets.sophgo.shipping``."""
    target = SophgoTarget(CHIP)
    jobs = [*shipped_jobs(target, tmp_path)]
    assert len(jobs) == 1 + 4 * len(SIZES)
    missing = [one.label for one in jobs if target.find_skeleton(one, "any") is None]
    assert missing == []
    assert len([*shipped.FOLDER.iterdir()]) == len(jobs) + 1
