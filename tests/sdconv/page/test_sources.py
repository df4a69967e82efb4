"""From what a visitor names to a file; and what a job keeps of his uploads."""

import os
import shutil
import time
from pathlib import Path

import pytest

from converter.downloads.policy import DownloadPolicy
from converter.errors import InputError
from converter.progress import silent
from sdconv.page.order import Order
from sdconv.page.sources import KEPT, Sources, keep_uploads
from sdconv.page.workspace import Workspace
from tests.sdconv.page.conftest import uploaded

ADDRESS = "https://host/model.safetensors"


def test_uploads_of_one_name_are_both_kept_and_outlive_the_upload(workspace: Workspace) -> None:
    job = workspace.jobs / "job"
    (workspace.root / "mine.ckpt").write_bytes(b"mine")
    first, second = uploaded(workspace, "a b.safetensors"), uploaded(workspace, "a_b.safetensors")
    order = Order(
        checkpoint=str(first), loras=((str(second), "1"), ("mine.ckpt", "1"), (ADDRESS, "1"))
    )
    kept = keep_uploads(order, workspace, job)
    assert kept.checkpoint == "input:a_b.safetensors"
    assert [s for s, _ in kept.loras] == ["input:2-a_b.safetensors", "mine.ckpt", ADDRESS]
    shutil.rmtree(workspace.uploads)
    sources = Sources(workspace, job)
    assert sources.local(kept.checkpoint).read_bytes() == b"a b.safetensors"
    assert sources.local(kept.loras[0][0]).read_bytes() == b"a_b.safetensors"
    assert sources.local("mine.ckpt") == workspace.root / "mine.ckpt"


@pytest.mark.parametrize("name", ["../job.json", "/etc/passwd", "link.safetensors", "none.bin", ""])
def test_nothing_but_its_own_inputs_is_kept_by_a_job(workspace: Workspace, name: str) -> None:
    job = workspace.jobs / "job"
    (job / "inputs").mkdir(parents=True)
    (job / "job.json").write_text("{}")
    (job / "inputs" / "link.safetensors").symlink_to(job / "job.json")
    with pytest.raises(InputError, match="not among the job's own files"):
        Sources(workspace, job).local(KEPT + name)


def test_kept_files_are_for_their_job_alone(workspace: Workspace) -> None:
    (workspace.jobs / "job" / "inputs").mkdir(parents=True)
    (workspace.jobs / "job" / "inputs" / "a.bin").write_bytes(b"")
    with pytest.raises(InputError, match="no such file"):
        Sources(workspace).local("input:a.bin")
    with pytest.raises(InputError, match="no such file"):
        Sources(workspace, workspace.jobs / "other").local("jobs/job/inputs/a.bin")


def fetch(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = sources.workspace.downloads / "downloads" / "1" / "model.safetensors"

    def fetched(*_: object, folder: Path, policy: DownloadPolicy) -> Path:
        assert folder == sources.workspace.downloads
        assert policy.public_only
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"fetched")
        return path

    monkeypatch.setattr("sdconv.page.sources.local_path", fetched)
    return sources.fetch(ADDRESS, "", DownloadPolicy(public_only=True), silent)


def test_an_address_is_found_once_it_was_fetched(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources(workspace)
    with pytest.raises(InputError, match="not fetched yet"):
        sources.local(ADDRESS)
    path = fetch(sources, monkeypatch)
    assert sources.local(ADDRESS) == path
    assert sources.fetched(ADDRESS, "fp16") is None  # another variant may be other files
    path.unlink()
    assert sources.fetched(ADDRESS) is None


def test_what_is_used_counts_as_fresh(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources(workspace)
    fetch(sources, monkeypatch)
    (record,) = (workspace.downloads / "fetched").iterdir()
    os.utime(record, (0, 0))
    sources.local(ADDRESS)
    assert time.time() - record.stat().st_mtime < 60


def test_a_record_that_leads_elsewhere_is_not_followed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources(workspace)
    fetch(sources, monkeypatch)
    (record,) = (workspace.downloads / "fetched").iterdir()
    record.write_text(record.read_text().replace(str(workspace.downloads), "/etc"))
    record.write_text('{"path": "/etc/passwd"}')
    assert sources.fetched(ADDRESS) is None


def test_an_unsafe_address_is_refused_without_a_look(workspace: Workspace) -> None:
    for text in ("http://host/x", "https://host/x?token=s3cret", "file:///etc/passwd"):
        with pytest.raises(InputError) as error:
            Sources(workspace).local(text)
        assert "s3cret" not in str(error.value)
