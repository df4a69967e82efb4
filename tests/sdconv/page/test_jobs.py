"""Jobs on disk: whose they are, and that nothing damaged or foreign is taken for one."""

import json
from pathlib import Path

import pytest

from converter.errors import InputError
from sdconv.page.jobs import ID, Job, Jobs
from sdconv.page.order import Order
from sdconv.page.run_folder import ENDED, RUNNING, WAITING, Outcome, State
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace
from tests.sdconv.page.conftest import uploaded


@pytest.fixture
def jobs(workspace: Workspace) -> Jobs:
    return Jobs(workspace)


def made(jobs: Jobs, visitor: Visitor, state: str = ENDED) -> Job:
    job = jobs.create(Order(sizes="64x64"), visitor)
    job.run.save_state(State(state, 1.0))
    return job


def test_every_job_has_a_folder_of_its_own(jobs: Jobs, ann: Visitor) -> None:
    made_ = [jobs.create(Order(), ann) for _ in range(20)]
    assert len({job.folder for job in made_}) == 20
    assert all(ID.fullmatch(job.id) and job.folder.parent == jobs.workspace.jobs for job in made_)


def test_history_is_read_from_disk(jobs: Jobs, ann: Visitor) -> None:
    job = made(jobs, ann)
    (again,) = Jobs(jobs.workspace).of(ann)
    assert again == job
    assert again.order == Order(sizes="64x64")


def test_two_visitors_see_their_own(jobs: Jobs, ann: Visitor, ben: Visitor) -> None:
    mine, his = made(jobs, ann), made(jobs, ben)
    assert [job.id for job in jobs.of(ann)] == [mine.id]
    assert [job.id for job in jobs.of(ben)] == [his.id]
    assert jobs.of(Visitor(None)) == []
    said = []
    for name in (mine.id, "20260101-000000-" + "0" * 32):
        with pytest.raises(InputError, match="no job") as error:
            jobs.find(name, ben)
        said.append(str(error.value).replace(name, "*"))
    assert said[0] == said[1]  # what is another's and what does not exist are alike


def test_who_knows_the_id_of_a_programs_job_may_use_it(jobs: Jobs, ann: Visitor) -> None:
    job = made(jobs, Visitor(None))
    assert jobs.find(job.id, ann).id == jobs.find(job.id, Visitor(None)).id == job.id


@pytest.mark.parametrize(
    "name", ["", "..", "../jobs", ".server.lock", "x", "20260101-000000-" + "g" * 32]
)
def test_other_names_are_no_jobs(jobs: Jobs, ann: Visitor, name: str) -> None:
    with pytest.raises(InputError, match="no job"):
        jobs.find(name, ann)


@pytest.mark.parametrize("file", ["job.json", "state.json", "outcome.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\x00"])
def test_a_damaged_record_is_not_shown(jobs: Jobs, ann: Visitor, file: str, content: bytes) -> None:
    job, other = made(jobs, ann), made(jobs, ann)
    job.run.save_outcome(Outcome("judged", "fine", "pass"))
    (job.folder / file).write_bytes(content)
    assert [j.id for j in jobs.of(ann)] == [other.id]


@pytest.mark.parametrize("field", ["owner", "order", "id"])
def test_a_record_that_was_changed_is_not_shown(jobs: Jobs, ann: Visitor, field: str) -> None:
    job = made(jobs, Visitor("browser somebody"))
    record = json.loads((job.folder / "job.json").read_text())
    record[field] = {"owner": ann.owner, "order": {"checkpoint": "/etc/passwd"}, "id": "x"}[field]
    (job.folder / "job.json").write_text(json.dumps(record))
    assert jobs.get(job.id) is None
    assert jobs.of(ann) == []


def test_a_link_is_no_job(jobs: Jobs, ann: Visitor, tmp_path: Path) -> None:
    job = made(jobs, ann)
    moved = tmp_path / "elsewhere"
    job.folder.rename(moved)
    job.folder.symlink_to(moved)
    assert jobs.of(ann) == []


@pytest.mark.parametrize("state", [WAITING, RUNNING])
def test_what_is_not_finished_is_not_removed(jobs: Jobs, ann: Visitor, state: str) -> None:
    job = made(jobs, ann, state)
    with pytest.raises(InputError, match="stop it first"):
        jobs.remove(job)
    assert job.folder.is_dir()


def test_a_removed_job_is_gone_and_nothing_else(jobs: Jobs, ann: Visitor) -> None:
    (jobs.workspace.root / "model.safetensors").write_bytes(b"mine")
    job = made(jobs, ann)
    (job.folder / "link").symlink_to(jobs.workspace.root)
    jobs.remove(job)
    assert [p.name for p in jobs.workspace.jobs.iterdir()] == []
    assert (jobs.workspace.root / "model.safetensors").read_bytes() == b"mine"


def test_an_order_that_cannot_be_kept_leaves_no_folder(jobs: Jobs, ann: Visitor) -> None:
    order = Order(checkpoint=str(uploaded(jobs.workspace, "a.bin")), loras=(("gone.bin", "1"),))
    with pytest.raises(InputError):
        jobs.create(order, ann)
    assert list(jobs.workspace.jobs.iterdir()) == []
