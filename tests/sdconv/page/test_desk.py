"""Who may do what, and how much: the desk that page and programs go to."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.errors import InputError
from sdconv.page.desk import Desk
from sdconv.page.drawing import Wish
from sdconv.page.jobs import Job
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.retention import Retention
from sdconv.page.run_folder import (
    ENDED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    WAITING,
    Outcome,
    RunFolder,
    State,
)
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace
from targets.base import ToolchainError
from targets.onnxruntime import OnnxRuntimeTarget
from tests.conftest import SmallModel
from tests.sdconv.page.conftest import uploaded
from tests.sdconv.page.test_schedule import Fakes

ORDER = Order(checkpoint="small.safetensors", targets=("onnxruntime",), sizes="64x64")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Runs without processes."""
    fakes = Fakes()
    monkeypatch.setattr(Desk, "_start", lambda _, run: fakes(run))
    return fakes


@pytest.fixture
def desk(models: Workspace, fakes: Fakes) -> Iterator[Desk]:
    desk = Desk(models, Limits(waiting=2, each=2))
    yield desk
    desk.close()


def ended(desk: Desk, fakes: Fakes, job: Job, **changes: Any) -> None:
    fakes.end(job.run, **changes)
    assert desk.wait(job.run, 30)


def test_an_order_is_queued_with_its_plan(desk: Desk, ann: Visitor) -> None:
    first, second = desk.submit(ORDER, ann), desk.submit(ORDER, ann)
    assert (first.state.state, second.state.state) == (RUNNING, WAITING)
    assert (desk.position(first.run), desk.position(second.run)) == (None, 1)
    stages = [step.stage for step in first.planned()]
    assert stages[0] == "start"
    assert "export unet" in stages
    assert "compile unet 64x64 f32" in stages
    assert "validate unet 64x64 f32" in stages
    assert first.settled.profile == "diffusers"  # what any host of this target binds


def test_an_upload_is_kept_with_the_job(desk: Desk, ann: Visitor, small_model: SmallModel) -> None:
    path = uploaded(desk.workspace, "my model.safetensors", small_model.checkpoint)
    job = desk.submit(Order(checkpoint=str(path), targets=ORDER.targets, sizes="64x64"), ann)
    assert job.order.checkpoint == "input:my_model.safetensors"
    assert (job.folder / "inputs" / "my_model.safetensors").stat().st_nlink == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"checkpoint": ""}, "no checkpoint is chosen"),
        ({"checkpoint": "../x"}, "no such file"),
        ({"checkpoint": "/etc/passwd"}, "no such file"),
        ({"checkpoint": "style.safetensors"}, "wants a checkpoint"),
        ({"targets": ()}, "no target is chosen"),
        ({"targets": ("abacus",)}, "unknown target"),
        ({"profile": "nobody"}, "unknown profile"),
        ({"sizes": "500x64"}, "the nearest that works is"),
        ({"precision": {"onnxruntime": "unet=f1"}}, "has f32: choose"),
        ({"loras": (("small.safetensors", "1"),)}, "small.safetensors: a checkpoint"),
        ({"loras": (("../style.safetensors", "1"),)}, "no such file"),
        ({"controlnets": ("style.safetensors",)}, "style.safetensors"),
        ({"steps": "compile"}, "no export is chosen"),
        ({"steps": "compile", "bundle": "job:" + "20260101-000000-" + "0" * 32}, "no export"),
        ({"steps": "compile", "bundle": "job:../x"}, "no export is chosen"),
        ({"steps": "compile", "bundle": "../x"}, "no such file"),
        ({"checkpoint": "http://host/x"}, "only https"),
        ({"checkpoint": "https://h/x", "sizes": "big"}, "is not WIDTHxHEIGHT"),
    ],
)
def test_mistakes_are_told_before_anything_is_queued(
    desk: Desk, ann: Visitor, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as error:
        desk.submit(Order(**{**ORDER.__dict__, **changes}), ann)
    assert str(desk.workspace.root) not in desk.told(error.value)
    assert [p.name for p in desk.workspace.jobs.iterdir()] == [".server.lock"]


def test_a_target_that_is_not_ready_is_refused(
    desk: Desk, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unready(_: object) -> None:
        raise ToolchainError("it is not installed: run 'sdconv toolchain install it'")

    monkeypatch.setattr(OnnxRuntimeTarget, "check_ready", unready)
    with pytest.raises(ToolchainError, match="not installed"):
        desk.submit(ORDER, ann)


def test_an_address_is_looked_at_by_the_run_that_fetches_it(desk: Desk, ann: Visitor) -> None:
    job = desk.submit(
        Order(checkpoint="hf:owner/name", targets=("onnxruntime",), sizes="64x64"), ann
    )
    assert job.state.state == RUNNING
    assert job.planned() == []


def test_the_queue_and_a_visitors_share_are_limited(desk: Desk, ann: Visitor, ben: Visitor) -> None:
    desk.submit(ORDER, ann)
    desk.submit(ORDER, ann)
    with pytest.raises(InputError, match="2 of your conversions are not done yet"):
        desk.submit(ORDER, ann)
    desk.submit(ORDER, ben)
    with pytest.raises(InputError, match="2 conversions wait already"):
        desk.submit(ORDER, ben)


def test_programs_share_one_allowance(desk: Desk) -> None:
    for _ in range(2):
        desk.submit(ORDER, Visitor(None))
    with pytest.raises(InputError, match="not done yet"):
        desk.submit(ORDER, Visitor(None, "zh"))


def test_a_full_page_takes_no_orders(desk: Desk, ann: Visitor) -> None:
    uploaded(desk.workspace, "large.bin")
    desk.retention = Retention(desk.jobs, Limits(quota=1))
    with pytest.raises(InputError, match="the room of this page is used up"):
        desk.submit(ORDER, ann)


def test_another_visitor_can_do_nothing_with_a_job(
    desk: Desk, fakes: Fakes, ann: Visitor, ben: Visitor
) -> None:
    job = desk.submit(ORDER, ann)
    for act in (desk.job, desk.stop, desk.resume, desk.remove, desk.stop_drawing):
        with pytest.raises(InputError, match="no job"):
            act(job.id, ben)
    assert desk.job(job.id, ann).state.state == RUNNING
    ended(desk, fakes, job)
    stolen = Order(steps="compile", bundle=f"job:{job.id}", targets=("onnxruntime",), sizes="64x64")
    (job.folder / "bundle").mkdir()
    (job.folder / "bundle" / "bundle.json").write_text("{}")
    with pytest.raises(InputError, match="no export is chosen"):
        desk.submit(stolen, ben)


def test_a_job_is_stopped_resumed_and_removed(desk: Desk, fakes: Fakes, ann: Visitor) -> None:
    job = desk.submit(ORDER, ann)
    with pytest.raises(InputError, match="only what was interrupted"):
        desk.resume(job.id, ann)
    with pytest.raises(InputError, match="stop it first"):
        desk.remove(job.id, ann)
    assert desk.stop(job.id, ann).state.state == STOPPED
    assert desk.resume(job.id, ann).state.state == RUNNING
    ended(desk, fakes, job, outcome=Outcome("failed", "the compiler"))
    assert desk.resume(job.id, ann).outcome is None
    ended(desk, fakes, job)
    with pytest.raises(InputError, match="only what was interrupted"):
        desk.resume(job.id, ann)
    desk.remove(job.id, ann)
    assert desk.jobs.of(ann) == []
    assert not job.folder.exists()


def test_two_servers_do_not_share_a_root(desk: Desk) -> None:
    with pytest.raises(InputError, match="another server has this root folder"):
        Desk(desk.workspace, Limits())


def test_a_new_server_goes_on_where_the_old_one_ended(
    models: Workspace, fakes: Fakes, ann: Visitor
) -> None:
    old = Desk(models, Limits())
    running, waiting = old.submit(ORDER, ann), old.submit(ORDER, ann)
    old.close()
    new = Desk(models, Limits())
    try:
        assert new.job(running.id, ann).state.state == INTERRUPTED
        assert new.job(waiting.id, ann).state.state == RUNNING
        assert new.resume(running.id, ann).state.state == WAITING
    finally:
        new.close()


def test_a_drawing_that_was_cut_off_is_forgotten(models: Workspace, ann: Visitor) -> None:
    desk = Desk(models, Limits())
    job = desk.jobs.create(ORDER, ann)
    job.run.save_state(State(ENDED, time.time()))
    drawing = job.folder / "drawings" / "1"
    drawing.mkdir(parents=True)
    (drawing / "drawing.json").write_text(json.dumps({"prompt": "x", "target": "t", "size": "s"}))
    RunFolder(drawing).save_state(State(RUNNING, 1.0))
    desk.close()
    Desk(models, Limits()).close()
    assert not drawing.exists()


def test_an_upload_that_is_no_model_is_removed_and_others_stay(desk: Desk) -> None:
    path = uploaded(desk.workspace, "holiday.safetensors")
    with pytest.raises(InputError) as error:
        desk.inspect(str(path))
    assert "holiday.safetensors" in desk.told(error.value)
    assert not path.exists()
    (desk.workspace.root / "mine.bin").write_bytes(b"mine")
    with pytest.raises(InputError):
        desk.inspect("mine.bin")
    assert (desk.workspace.root / "mine.bin").exists()


def test_a_picture_that_is_none_is_refused(desk: Desk, fakes: Fakes, ann: Visitor) -> None:
    job = desk.submit(ORDER, ann)
    ended(desk, fakes, job)
    hint = uploaded(desk.workspace, "edges.png")
    with pytest.raises(InputError, match=r"edges.png: no picture that can be read"):
        desk.draw(job.id, Wish("x", "onnxruntime", "64x64"), ann, str(hint))
    with pytest.raises(InputError, match="no such file"):
        desk.draw(job.id, Wish("x", "onnxruntime", "64x64"), ann, "/etc/passwd")


def test_what_is_told_names_no_folder_of_this_machine(desk: Desk, tmp_path: Path) -> None:
    root = desk.workspace.root
    upload = f"{root}/uploads/{'a' * 64}/x.safetensors"
    kept = f"{root}/jobs/20260101-000000-{'0' * 32}/inputs/x.safetensors"
    for path in (upload, kept, f"{root}/x.safetensors"):
        assert desk.told(InputError(f"{path}: bad")) == "x.safetensors: bad"
    assert "fault of sdconv itself (KeyError)" in desk.told(KeyError(str(tmp_path)))
