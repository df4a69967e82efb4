"""What is kept: by age and by room, only inside the page's own folders, never what runs."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import InputError
from sdconv.page.jobs import Job, Jobs
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.retention import DAY, Retention
from sdconv.page.run_folder import ENDED, RUNNING, WAITING, State
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace
from tests.sdconv.page.conftest import uploaded


@pytest.fixture
def retention(workspace: Workspace) -> Retention:
    return Retention(Jobs(workspace), Limits(keep_days=10, quota=1_000_000))


def job(retention: Retention, days: float, state: str = ENDED) -> Job:
    made = retention.jobs.create(Order(), Visitor("browser ann"))
    then = time.time() - days * DAY
    made.run.save_state(State(state, then, then, then))
    return made


def age(path: Path, days: float) -> Path:
    then = time.time() - days * DAY
    for entry in (*(path.rglob("*") if path.is_dir() else ()), path):
        os.utime(entry, (then, then), follow_symlinks=False)
    return path


def test_old_jobs_go_and_others_stay(retention: Retention) -> None:
    old, new = job(retention, 11), job(retention, 9)
    running, waiting = job(retention, 99, RUNNING), job(retention, 99, WAITING)
    retention.sweep()
    assert not old.folder.exists()
    assert all(j.folder.is_dir() for j in (new, running, waiting))


def test_a_damaged_job_goes_by_the_age_of_its_folder(retention: Retention) -> None:
    old, new = job(retention, 99), job(retention, 0)
    for damaged in (old, new):
        (damaged.folder / "job.json").write_text("{")
    age(old.folder, 11)
    retention.sweep()
    assert (old.folder.exists(), new.folder.exists()) == (False, True)


def test_half_removed_jobs_go_at_once(retention: Retention) -> None:
    half = retention.jobs.workspace.jobs / ".removed-1"
    half.mkdir()
    retention.sweep()
    assert not half.exists()


def test_old_uploads_go(retention: Retention) -> None:
    workspace = retention.jobs.workspace
    old, new = uploaded(workspace, "old.bin"), uploaded(workspace, "new.bin")
    aborted = workspace.uploads / "tmp123"
    aborted.write_bytes(b"half")
    for path in (old.parent, aborted):
        age(path, 1.1)
    retention.sweep()
    assert (old.exists(), new.exists(), aborted.exists()) == (False, True, False)


def test_downloads_that_nobody_uses_go(retention: Retention) -> None:
    downloads = retention.jobs.workspace.downloads
    kept, gone, partial = (downloads / "downloads" / name for name in ("kept", "gone", "partial"))
    hub = downloads / "hub" / "models--owner--name"
    for number, unit in enumerate((kept, gone, hub / "snapshots" / "1", partial)):
        unit.mkdir(parents=True)
        (unit / "model.safetensors").write_bytes(b"x")
        if unit != partial:
            record = downloads / "fetched" / f"{number}.json"
            record.parent.mkdir(exist_ok=True)
            record.write_text(json.dumps({"path": str(unit / "model.safetensors")}))
            age(record, 1 if unit == kept else 11)
    for unit in (kept, gone, hub):
        age(unit, 11)
    retention.sweep()
    assert [p.exists() for p in (kept, gone, hub, partial)] == [True, False, False, True]


def test_nothing_else_below_the_root_is_touched(retention: Retention, tmp_path: Path) -> None:
    root = retention.jobs.workspace.root
    for place in (root / "model.safetensors", root / "jobs" / "notes.txt", root / "downloads" / "x",
                  tmp_path / "outside"):  # fmt: skip
        place.write_bytes(b"mine")
        age(place, 99)
    link = retention.jobs.workspace.uploads / "link"
    link.symlink_to(tmp_path)
    age(link, 99)
    retention.sweep()
    assert not link.is_symlink()
    assert all(p.read_bytes() == b"mine" for p in (
        root / "model.safetensors", root / "jobs" / "notes.txt", root / "downloads" / "x",
        tmp_path / "outside",
    ))  # fmt: skip


def test_room_is_shared_and_hard_links_count_once(retention: Retention) -> None:
    before = retention.used()
    upload = uploaded(retention.jobs.workspace, "a.bin")
    upload.write_bytes(os.urandom(400_000))
    kept = job(retention, 0).folder / "inputs" / "a.bin"
    kept.parent.mkdir()
    kept.hardlink_to(upload)
    assert 400_000 <= retention.used() - before < 500_000


def test_a_full_page_refuses_after_it_removed_what_is_old(retention: Retention) -> None:
    old = job(retention, 11)
    (old.folder / "big").write_bytes(os.urandom(900_000))
    retention.require_room(500_000)
    assert not old.folder.exists()
    (job(retention, 1).folder / "big").write_bytes(os.urandom(900_000))
    retention.require_room()
    with pytest.raises(InputError, match="the room of this page is used up"):
        retention.require_room(500_000)
    replace(retention, limits=Limits(quota=10**9)).require_room(500_000)
