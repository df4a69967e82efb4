"""The view of one job: where it is, what can be done with it, what it came to."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from blake3 import blake3
from gradio.blocks import Block

from sdconv.page.views.base import LATEST, QUIET, Shown, asks, kept, refused, word
from sdconv.page.views.try_box import TryBox
from sdconv.page.visitor import Visitor
from sdconv.page.watching import Panels, Watching
from sdconv.page.words import every_language

REPORT, TRY, FILES, COMMANDS = "report", "try", "files", "commands"
"""The parts of a result."""

Piece = tuple[str, object, Callable[[], Shown]]
"""A part of the view, what it depends on, and how it is shown."""


class JobTab:
    """`opened` is the id of the job that is shown, `digest` what the browser was told of it."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self.opened, self.digest = kept(2)
        self.timer = gr.Timer(1.0, active=False)
        self.status = gr.HTML(elem_id="status")
        with gr.Row(elem_classes="sdc-actions"):
            self.stop = gr.Button(
                word("job.stop"),
                size="md",
                visible=False,
                elem_id="stop",
                elem_classes="sdc-danger",
            )
            self.resume = gr.Button(
                word("job.resume"),
                variant="primary",
                size="md",
                visible=False,
                elem_id="resume",
            )
            self.compile = gr.Button(
                word("job.compile"),
                variant="primary",
                size="md",
                visible=False,
                elem_id="go-on",
            )
            self.remove = gr.Button(word("job.remove"), size="md", visible=False, elem_id="remove")
        with gr.Accordion(word("job.log"), open=False, visible=False, elem_id="log") as self.fold:
            self.log = gr.HTML(autoscroll=True, max_height=300, elem_classes="sdc-log")
        with gr.Tabs(visible=False, elem_classes="sdc-result") as self.result:
            with gr.Tab(word("result.report"), id=REPORT):
                self.report = gr.HTML(elem_id="report")
            with gr.Tab(word("result.try"), id=TRY):
                self.trying = TryBox(watching)
            with gr.Tab(word("result.files"), id=FILES):
                self.files = gr.HTML(elem_id="files")
            with gr.Tab(word("result.commands"), id=COMMANDS):
                self.commands = gr.HTML(elem_id="commands")
        self._connect()

    def _connect(self) -> None:
        desk = self._watching.desk
        self.timer.tick(self.watch, self.watched, self.seen, **LATEST)
        again = self.trying.connect(self.opened)
        for button, act in ((self.stop, desk.stop), (self.resume, desk.resume)):
            again.append(button.click(self.doing(act), self.opened, **QUIET))
        for event in again:
            self.watch_after(event)

    def watch_after(self, event: Any) -> Any:
        """Look at the job again after something was done."""
        return event.then(self.watch, self.watched, self.seen, **QUIET)

    @property
    def watched(self) -> list[Block]:
        """What decides what is to be seen."""
        return [self.opened, self.digest]

    @property
    def seen(self) -> list[Block]:
        """Everything that is to be seen of a job."""
        return [self.status, self.log, self.fold, self.stop, self.resume, self.compile,
                self.remove, self.result, self.report, self.files,
                self.commands, *self.trying.shown, self.timer, self.digest]  # fmt: skip

    def watch(self, opened: str, digest: str, request: gr.Request) -> Shown:
        """What changed of the job that is open since the browser was told last."""
        now = self._watching.show(opened, asks(request))
        told_before, keys = _read_digest(digest), {}
        shown: Shown = {}
        for name, key, updates in self._pieces(now, opened):
            keys[name] = blake3(repr(key).encode()).hexdigest()[:16]
            if told_before.get(name) != keys[name]:
                shown |= updates()
        return {**shown, self.digest: json.dumps(keys)}

    def _pieces(self, now: Panels, opened: str) -> Iterator[Piece]:
        there = now.kind != "none"
        doing = (now.stops, now.resumes, now.compiles, now.removes)
        yield "status", now.status, lambda: {self.status: now.status}
        yield "log", now.log, lambda: {self.log: now.log}
        yield "fold", there, lambda: {self.fold: gr.update(visible=there)}
        yield "doing", doing, lambda: self._buttons(doing)
        yield "result", (opened, now.kind, now.result), lambda: self._result(now)
        yield "drawing", (now.drawing, now.draws), lambda: self.trying.pictures(now)
        yield "active", now.active, lambda: {self.timer: gr.Timer(active=now.active)}

    def _buttons(self, doing: tuple[bool, ...]) -> Shown:
        buttons = (self.stop, self.resume, self.compile, self.remove)
        return {b: gr.update(visible=can) for b, can in zip(buttons, doing, strict=True)}

    def _result(self, now: Panels) -> Shown:
        result = now.result
        if result is None:
            return {self.result: gr.update(visible=False)}
        return {
            self.result: gr.Tabs(visible=True, selected=REPORT if result.judged else FILES),
            self.report: result.report,
            self.files: result.files,
            self.commands: result.commands,
            **self.trying.result(result),
        }

    def doing(self, act: Callable[[str, Visitor], object]) -> Callable[[str, gr.Request], None]:
        """What a button does with the job that is open."""

        def do(opened: str, request: gr.Request) -> None:
            try:
                act(opened, asks(request))
            except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
                refused(e, self._watching.desk)

        return do


def consent(key: str) -> str:
    """JavaScript that asks before it goes on; without consent no job is named."""
    asked = {language: words[key] for language, words in every_language().items()}
    return f"""(job) => {{
      const asked = {json.dumps(asked)};
      return confirm(asked[navigator.language.slice(0, 2)] || asked.en) ? job : "";
    }}"""


def _read_digest(text: str) -> Mapping[str, object]:
    """What a browser says that it was told; nothing where that makes no sense."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
