"""Real conversions in processes of their own, and what becomes of them."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from converter.errors import InputError
from sdconv.page import child, drawing, panels
from sdconv.page.deliverables import archive, changed, files_of
from sdconv.page.desk import Desk
from sdconv.page.drawing import Easel, Wish, drawings
from sdconv.page.jobs import Job, Jobs
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.run_folder import ENDED, INTERRUPTED, Outcome, State
from sdconv.page.visitor import Visitor
from sdconv.page.words import Words
from sdconv.page.workspace import Workspace
from targets.manifest import Manifest
from targets.onnxruntime import OnnxRuntimeTarget
from tests.conftest import SmallModel
from tests.sdconv.page.conftest import MINUTE, uploaded
from tests.sdconv.page.test_child import gone

TEXT = Order(
    checkpoint="small.safetensors",
    components=("text_encoder",),
    targets=("onnxruntime",),
    sizes="64x64",
)
"""The shortest conversion."""


def finished(desk: Desk, job: Job, visitor: Visitor) -> Job:
    assert desk.wait(job.run, 2 * MINUTE), job.run.log()
    return desk.job(job.id, visitor)


@pytest.mark.slow
def test_a_checkpoint_and_a_lora_become_judged_artifacts_that_draw(
    models: Workspace, small_model: SmallModel, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(models, Limits())
    try:
        upload = uploaded(models, "my model.safetensors", small_model.checkpoint)
        order = Order(
            checkpoint=str(upload),
            loras=(("style.safetensors", "0.5"),),
            targets=("onnxruntime",),
            sizes="64x64",
        )
        job = finished(desk, desk.submit(order, ann), ann)
        assert job.outcome is not None, job.run.log()
        assert (job.outcome.kind, job.outcome.verdict) == ("judged", "pass"), job.outcome
        assert "4 of 4 artifacts " in job.outcome.sentence
        assert changed(job) == []
        _is_packed(job)
        _is_shown(job)
        _draws(desk, job, ann, monkeypatch)
        _notices_a_change(job)
    finally:
        desk.close()


def _is_packed(job: Job) -> None:
    files = files_of(job)
    with zipfile.ZipFile(BytesIO(b"".join(archive(files)))) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == list(files)
        for name, path in files.items():
            assert packed.read(name) == path.read_bytes()
    made = Manifest.load(job.folder / "artifacts").artifacts
    assert {a.path for a in made} < set(files)  # where their consumer opens them
    assert {"manifest.json", "report.html", "report.json"} < set(files)


def _is_shown(job: Job) -> None:
    status = panels.status(Words("en"), job, None)
    assert "my_model.safetensors" in status
    assert "style.safetensors:0.5" in status
    assert status.count('class="done"') == 3
    assert panels.files(Words("zh"), job, 30).count("通过") == 4
    view = job.run.view()
    assert ("export", "export unet") in view.finished
    assert any("ran" in note for note in view.notes)


def _draws(desk: Desk, job: Job, ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = Wish("a house", "onnxruntime", "64x64", steps=1, guidance=1)
    drawing = desk.draw(job.id, wish, ann)
    assert desk.wait(drawing.run, MINUTE)
    outcome = drawing.run.outcome()
    assert outcome is not None
    assert outcome.kind == "drawn", outcome
    assert drawing.picture.read_bytes().startswith(b"\x89PNG")
    assert [d.wish for d in drawings(job)] == [wish]
    with monkeypatch.context() as slowly:
        slowly.setattr(OnnxRuntimeTarget, "run_seconds", lambda *_: 2.0)
        long = Wish("x", "onnxruntime", "64x64", steps=3, guidance=5)
        # Two prompts, three steps with both of them, one picture.
        assert Easel.of(job).seconds(long, job.folder) == 2.0 * (2 + 6 + 1)
    assert Easel.of(job).seconds(long, job.folder) is None  # it runs on this machine itself


def _notices_a_change(job: Job) -> None:
    """History is checked against what was made: nobody is told of a verdict on other bytes."""
    name = next(name for name in files_of(job) if name.endswith(".onnx"))
    path = job.folder / "artifacts" / name
    before = path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before + 10**9, before + 10**9))
    assert changed(job) == [name]
    assert name in panels.status(Words("en"), job, None)


@pytest.mark.slow
def test_step_one_then_step_two(desk: Desk, models: Workspace, ann: Visitor, ben: Visitor) -> None:
    order = Order(**{**TEXT.__dict__, "steps": "export", "format": "both", "targets": ()})
    exported = finished(desk, desk.submit(order, ann), ann)
    assert exported.outcome is not None
    assert exported.outcome.kind == "exported", exported.outcome
    assert "text_encoder/text_encoder.onnx" in files_of(exported)  # the original tool's tree
    second = Order(
        steps="compile", bundle=f"job:{exported.id}", targets=("onnxruntime",), sizes="64x64"
    )
    with pytest.raises(InputError, match="no export is chosen"):
        desk.submit(second, ben)
    job = finished(desk, desk.submit(second, ann), ann)
    assert job.outcome is not None
    assert (job.outcome.kind, job.outcome.verdict) == ("judged", "pass"), job.outcome
    assert panels.title_of(job) == "small.safetensors"  # what was exported, not by which job
    desk.remove(exported.id, ann)
    assert changed(desk.job(job.id, ann)) == []  # it stands on its own


def test_a_refusal_of_the_run_is_one_sentence_of_the_page(desk: Desk, models: Workspace) -> None:
    """The file changed between the order and its turn."""
    nobody = Visitor(None)
    order = Order(**{**TEXT.__dict__, "checkpoint": "copy.safetensors"})
    path = models.root / "copy.safetensors"
    path.write_bytes((models.root / "small.safetensors").read_bytes())
    job = desk.jobs.create(order, nobody)
    path.write_bytes(b"something else")
    desk._queue.add(job.run)
    job = finished(desk, job, nobody)
    assert job.outcome is not None
    assert job.outcome.kind == "refused"
    assert job.outcome.sentence.startswith("copy.safetensors:")
    assert panels.kind_of(job) == "refused"


def test_a_fault_is_told_by_its_kind_and_its_traceback_is_in_the_log(
    desk: Desk, models: Workspace
) -> None:
    nobody = Visitor(None)
    job = desk.jobs.create(TEXT, nobody)
    job.save_plan("diffusers", [])
    (job.folder / "bundle").write_text("a file where a folder belongs")
    (job.folder / "plan.json").write_text(json.dumps({"profile": "diffusers", "steps": [
        {"target": "", "stage": "x", "seconds": 1}]}))  # fmt: skip
    desk._queue.add(job.run)
    job = finished(desk, job, nobody)
    assert job.outcome is not None
    assert job.outcome.kind in ("failed", "fault")
    assert str(models.root) not in job.outcome.sentence


SERVER = """
import sys, time
from pathlib import Path
from sdconv.page.desk import Desk
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace

desk = Desk(Workspace(Path(sys.argv[1])), Limits())
order = Order(checkpoint="small.safetensors", components=("text_encoder",),
              targets=("onnxruntime",), sizes="64x64")
print(desk.submit(order, Visitor("browser ann")).id, flush=True)
time.sleep(60)
"""


def test_a_run_that_was_cut_off_is_resumed_in_its_folder(
    models: Workspace, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed while its run stands still and cannot end by itself."""
    monkeypatch.setattr(child, "GRACE", 1.0)
    command = [sys.executable, "-c", SERVER, str(models.root)]
    env = {**os.environ, "PYTHONPATH": str(child.CODE)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as server:
        assert server.stdout is not None
        name = server.stdout.readline().strip()
        process = running(Jobs(models), name)
        os.kill(process, signal.SIGSTOP)
        server.kill()
    desk = Desk(models, Limits())
    try:
        assert gone(process)
        job = desk.job(name, ann)
        assert panels.kind_of(job) == INTERRUPTED
        resumed = finished(desk, desk.resume(name, ann), ann)
        assert resumed.outcome is not None
        assert resumed.outcome.verdict == "pass", resumed.run.log()
        assert [j.id for j in desk.jobs.of(ann)] == [name]
    finally:
        desk.close()


def running(jobs: Jobs, name: str) -> int:
    """Wait until a job does something; the id of its process."""
    for _ in range(600):
        job = jobs.get(name)
        if job is not None and job.state.process is not None and job.run.view().stage:
            return job.state.process[0]
        time.sleep(0.05)
    raise AssertionError("it did not begin")


def test_stopping_ends_the_process_and_leaves_no_half_file(
    desk: Desk, models: Workspace, ann: Visitor
) -> None:
    job = desk.submit(TEXT, ann)
    process = running(desk.jobs, job.id)
    desk.stop(job.id, ann)
    assert gone(process)
    left = [p.name for p in job.folder.rglob("*") if p.name.endswith(".partial")]
    assert left == []
    assert panels.kind_of(desk.job(job.id, ann)) == "stopped"


def test_a_picture_that_would_take_an_emulator_too_long_is_refused(
    desk: Desk, models: Workspace, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told in advance by what the target predicts; a short one is drawn, by its own name."""
    job = desk.jobs.create(TEXT, ann)
    job.run.save_state(State(ENDED, time.time()))
    job.run.save_outcome(Outcome("judged", "fine", "pass"))
    seconds = {"each": 400.0}

    class Slow(Easel):
        def seconds(self, wish: Wish, folder: Path) -> float | None:
            del folder
            wish.check()
            return seconds["each"] * (wish.steps or 20)

    slow = Slow(None, None, {"chip": ("64x64",)})  # type: ignore[arg-type]
    monkeypatch.setattr(drawing.Easel, "of", lambda _: slow)
    job = desk.job(job.id, ann)
    with pytest.raises(InputError, match="would take the emulator about 133 minutes, and 10 are"):
        drawing.new_drawing(job, Wish("x", "chip", "64x64"), Limits())
    with pytest.raises(InputError, match="no prompt"):
        drawing.new_drawing(job, Wish(" ", "chip", "64x64"), Limits())
    made = drawing.new_drawing(job, Wish("x", "chip", "64x64", steps=1), Limits())
    assert made.run.path.parent == job.folder / "drawings"
