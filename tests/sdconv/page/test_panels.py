"""Panels escape what visitors name, in both languages, and tell how far a job is."""

import time
from pathlib import Path

import pytest

from converter.inspection import inspect
from converter.progress import Event
from sdconv.page import panels
from sdconv.page.addons import Addon
from sdconv.page.choices import TargetState
from sdconv.page.drawing import Drawing, Wish
from sdconv.page.forecast import PlannedStep
from sdconv.page.jobs import Job, Jobs
from sdconv.page.order import Order
from sdconv.page.progress import progress
from sdconv.page.run_folder import (
    ENDED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    WAITING,
    Outcome,
    Reporter,
    RunFolder,
    State,
    View,
)
from sdconv.page.visitor import Visitor
from sdconv.page.words import Words
from sdconv.page.workspace import Workspace
from targets.onnxruntime import OnnxRuntimeTarget
from tests.conftest import SmallModel

EVIL = "<img src=x onerror=alert(1)>"
LANGUAGES = pytest.mark.parametrize("words", [Words("en"), Words("zh")], ids=["en", "zh"])


def job(workspace: Workspace, state: str, outcome: Outcome | None = None) -> Job:
    order = Order(checkpoint=EVIL, loras=((EVIL, "1"),), targets=(EVIL,), sizes=EVIL, format="both")
    made = Jobs(workspace).create(Order(), Visitor("browser ann"))
    made.run.save_state(State(state, time.time() - 100, time.time() - 90))
    if outcome is not None:
        made.run.save_outcome(outcome)
    return Job(made.id, made.run, order, made.owner)


@LANGUAGES
def test_names_are_escaped_everywhere(
    words: Words, workspace: Workspace, small_model: SmallModel
) -> None:
    found = inspect(small_model.lora)
    target = OnnxRuntimeTarget()
    running = job(workspace, RUNNING)
    Reporter(running.folder)(EVIL, Event(EVIL, 0.5, EVIL))
    failed = job(workspace, ENDED, Outcome("refused", EVIL))
    drawing = Drawing(RunFolder(running.folder), Wish(EVIL, EVIL, EVIL))
    shown = [
        panels.head(words, EVIL),
        panels.problem(words, EVIL),
        panels.found(words, EVIL, found),
        panels.fetching(words, EVIL, View(EVIL, EVIL)),
        panels.addons(words, [Addon(EVIL, "lora", EVIL, EVIL, (EVIL, EVIL, 1), word=EVIL)], "sd15"),
        panels.addons(words, [Addon(EVIL, "textual_inversion", EVIL, word='"><script>')], ""),
        panels.unready(words, [TargetState(target, EVIL)]),
        panels.status(words, running, None),
        panels.status(words, failed, None),
        panels.log(words, EVIL),
        panels.drawing(words, running, [drawing], None),
        panels.history(words, [running, failed], "", keyed=True),
    ]
    assert not any("<img src=x" in html or '"><script>' in html for html in shown)
    assert sum("&lt;img src=x" in html for html in shown) >= 10


@LANGUAGES
@pytest.mark.parametrize("state", [WAITING, RUNNING, STOPPED, INTERRUPTED])
def test_every_state_has_a_panel(words: Words, workspace: Workspace, state: str) -> None:
    made = job(workspace, state)
    shown = panels.status(words, made, 3 if state == WAITING else None)
    assert words(f"state.{state}") in shown
    assert ("3" in shown) or state != WAITING
    assert made.id in panels.history(words, [made], made.id, keyed=True)


@LANGUAGES
@pytest.mark.parametrize("kind", ["refused", "failed", "fault", "pass", "fail", "incomplete"])
def test_every_end_has_a_panel(words: Words, workspace: Workspace, kind: str) -> None:
    verdict = kind if kind in ("pass", "fail", "incomplete") else ""
    made = job(workspace, ENDED, Outcome("judged" if verdict else kind, "so it was", verdict))
    shown = panels.status(words, made, None)
    assert words(f"state.{kind}") in shown
    assert "so it was" in shown


@LANGUAGES
def test_nothing_to_show_has_words_too(words: Words) -> None:
    for shown in (
        panels.addons(words, (), ""), panels.log(words, ""), panels.unready(words, []),
        panels.history(words, [], "", keyed=True), panels.history(words, [], "", keyed=False),
        panels.hint(words, "job.none"), panels.precisions(words, [], {}),
        panels.estimate(words, None, 10), panels.estimate(words, 30, 10),
        panels.estimate(words, 30_000, 10),
    ):  # fmt: skip
        assert "{" not in shown


def test_an_addon_of_another_family_is_marked() -> None:
    lora = Addon("l", "lora", "l", "sdxl", ("LoRA", "8", 3))
    assert "trained for sdxl" in panels.addons(Words("en"), [lora], "sd15")
    assert "trained for" not in panels.addons(Words("en"), [lora], "sdxl")


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/b.safetensors", "b.safetensors"), ("input:b.bin", "b.bin"), ("hf:own/er", "hf:own/er"),
     ("https://host/x/m.ckpt#sha256=00", "m.ckpt"), ("/root/uploads/1/u.bin", "u.bin"), ("", "")],
)  # fmt: skip
def test_sources_are_called_by_their_last_name(source: str, name: str) -> None:
    assert panels.short_name(source) == name


PLANNED = [
    PlannedStep("", "start", 100),
    PlannedStep("", "export unet", 10),
    PlannedStep("chip", "compile unet 64x64 f16", 60),
    PlannedStep("chip", "bind unet", 10),
    PlannedStep("", "validate unet 64x64 f16", 20),
]


PLANNED_LAST = ("validate", "validate unet 64x64 f16")


def _after_export(step: str, stage: str, done: float, *more: tuple[str, str]) -> View:
    """What is reused is not always told: a step that is over counts as a whole."""
    return View(step, stage, done, finished=dict.fromkeys((("export", "x"), *more), 1.0))


@pytest.mark.parametrize(
    ("view", "done"),
    [
        (View("export", "export unet", 0.5), 0.05),
        (_after_export("compile chip", "compile unet 64x64 f16", 0.5), 0.4),
        (View("compile other", "compile unet 64x64 f16", 0.5), 0.0),  # a stage nobody foresaw
        (_after_export("validate", "judge", 0.5, ("compile chip", "bind unet")), 0.8),
        (_after_export("validate", "judge", 1, ("compile chip", ""), PLANNED_LAST), 0.99),
    ],
)
def test_the_whole_is_weighed_by_what_was_foreseen(view: View, done: float) -> None:
    told = progress(PLANNED, view, 50)
    assert told is not None
    assert told.done == pytest.approx(done, abs=0.011)


def test_what_is_left_follows_this_machines_pace() -> None:
    view = _after_export("compile chip", "compile unet 64x64 f16", 0.5)
    told = progress(PLANNED, view, 80)  # twice as slow as foreseen
    assert told is not None
    assert told.left == pytest.approx(120)
    assert progress([], view, 80) is None
    assert progress(PLANNED, View(), 80) is None


def test_what_a_run_writes_can_be_read_while_it_writes(tmp_path: Path) -> None:
    report = Reporter(tmp_path)
    report("export", Event("export unet", 0.0))
    report("export", Event("export unet", 1.0))
    report("compile chip", Event("compile unet", 0.5, "a note"))
    with (tmp_path / "notes.jsonl").open("a") as notes:
        notes.write('{"step": "x", "sta')  # cut off
    view = RunFolder(tmp_path).view()
    assert (view.step, view.stage, view.done) == ("compile chip", "compile unet", 0.5)
    assert view.notes == ("a note",)
    assert list(view.finished) == [("export", "export unet")]
    assert RunFolder(tmp_path / "none").view() == View()


def test_of_a_long_log_the_end_is_shown(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("first\n" + "x" * 100_000 + "\nlast\n")
    shown = RunFolder(tmp_path).log()
    assert shown.endswith("last\n")
    assert "first" not in shown
    assert RunFolder(tmp_path / "none").log() == ""
