"""What a machine has, read from made-up control groups as the kernel documents them."""

import os
from pathlib import Path

import psutil
import pytest

from targets.machine import Disk, Machine

GB = 10**9


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system with 64 GB available and 16 cores."""
    memory = psutil.virtual_memory()._replace(available=64 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_control_groups_the_system_decides(tmp_path: Path) -> None:
    assert Machine.here(tmp_path) == Machine(64 * GB, 16)


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/box/job\n",
        "sys/fs/cgroup/box/memory.max": f"{8 * GB}\n",
        "sys/fs/cgroup/box/memory.current": f"{5 * GB}\n",
        "sys/fs/cgroup/box/memory.stat": f"anon {2 * GB}\ninactive_file {3 * GB}\n",
        "sys/fs/cgroup/box/cpu.max": "250000 100000\n",
        "sys/fs/cgroup/box/job/memory.max": "max\n",
        "sys/fs/cgroup/box/job/cpu.max": "max 100000\n",
    }
    assert Machine.here(write(tmp_path, files)) == Machine(6 * GB, 2)


def test_a_container_sees_its_group_at_the_root(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{4 * GB}\n",
        "sys/fs/cgroup/memory.current": f"{1 * GB}\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
    }
    assert Machine.here(write(tmp_path, files)) == Machine(3 * GB, 1)


def test_version_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "7:cpu,cpuacct:/box\n5:memory:/box\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{2 * GB}\n",
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GB}\n",
        "sys/fs/cgroup/memory/box/memory.stat": f"cache 5\ntotal_inactive_file {GB // 2}\n",
    }
    assert Machine.here(write(tmp_path, files)).memory == 2 * GB - GB + GB // 2


def test_a_group_over_its_limit_has_no_room(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000\n",
        "sys/fs/cgroup/memory.current": "2000\n",
    }
    assert Machine.here(write(tmp_path, files)).memory == 0


def test_a_folder_to_come_lies_on_the_disk_of_the_one_above(tmp_path: Path) -> None:
    there, to_come = Disk.of(tmp_path), Disk.of(tmp_path / "a" / "b")
    assert there.device == to_come.device == tmp_path.stat().st_dev
    assert to_come.free > 0
    assert not (tmp_path / "a").exists()
