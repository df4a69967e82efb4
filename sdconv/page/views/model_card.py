"""The card in which a model is chosen: uploaded, on the server, at an address, or an export."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.blocks import Block

from sdconv.page import panels
from sdconv.page.composing import Composing
from sdconv.page.conversion import BUNDLE_OF_JOB
from sdconv.page.views.base import (
    FETCHING,
    QUIET,
    UPLOAD_LABEL,
    Shown,
    asks,
    card,
    kept,
    refused,
    word,
    words_for,
)

UPLOAD, SERVER, ADDRESS, EARLIER = "upload", "server", "address", "export"
"""The ways; the last choice counts, and clears the others."""


class ModelCard:
    """`model` is the source of a checkpoint, or `bundle` that of an export to go on with."""

    def __init__(self, composing: Composing) -> None:
        self._composing = composing
        self.model, self.bundle, self.family, self.kind = kept(4)
        with (
            card("step.model", "1"),
            gr.Tabs(elem_classes="sdc-ways", selected=UPLOAD) as self.ways,
        ):
            with gr.Tab(word("model.upload"), id=UPLOAD):
                self.upload = gr.File(height=150, elem_id="upload", **UPLOAD_LABEL)
            with gr.Tab(word("model.server"), id=SERVER):
                self.chosen = gr.Dropdown(
                    [],
                    label=word("model.chosen"),
                    info=word("model.chosen-info"),
                    allow_custom_value=True,
                    elem_id="chosen",
                )
            with gr.Tab(word("model.address"), id=ADDRESS):
                self.link = gr.Textbox(
                    label=word("model.link"),
                    info=word("model.link-info"),
                    placeholder=word("model.link-example"),
                    max_lines=1,
                    elem_id="link",
                )
                with gr.Row():
                    self.fetch = gr.Button(word("model.fetch"), elem_id="fetch")
                    self.stop = gr.Button(word("model.stop-fetch"), visible=False)
            with gr.Tab(word("model.export"), id=EARLIER):
                self.earlier = gr.Dropdown(
                    [],
                    label=word("model.bundle"),
                    info=word("model.bundle-info"),
                    elem_id="earlier",
                )
        with card("step.found", "2"):
            self.found = gr.HTML(elem_id="found")

    def connect(self, variant: Block) -> list[Any]:
        """The events after which another model is chosen; `variant` says which files of it."""
        shown: list[Block] = [self.model, self.bundle, self.found, self.upload, self.chosen,
                              self.earlier, self.stop]  # fmt: skip
        fetching = gr.on(
            [self.fetch.click, self.link.submit],
            self.choose_address,
            [self.link, variant],
            shown,
            **FETCHING,
        )
        self.stop.click(
            lambda: gr.update(visible=False), outputs=self.stop, cancels=[fetching], **QUIET
        )
        return [
            self.upload.upload(self.choose_upload, self.upload, shown, **QUIET),
            self.upload.clear(self.choose_nothing, outputs=shown, **QUIET),
            self.chosen.input(self.choose, [self.chosen, variant], shown, **FETCHING),
            self.earlier.input(self.choose_export, self.earlier, shown, **QUIET),
            fetching,
        ]

    def exports(self, request: gr.Request) -> list[tuple[str, str]]:
        """The visitor's own exports, and the bundles on the server."""
        words, desk = words_for(request), self._composing.desk
        own = [
            (
                f"{panels.title_of(job)} · {job.settled.profile} · {panels.age(words, job)}",
                BUNDLE_OF_JOB + job.id,
            )
            for job in desk.jobs.of(asks(request))
            if panels.kind_of(job) == "exported"
        ]
        return own + [(name, name) for name in desk.workspace.bundles()]

    def choose_nothing(self) -> Shown:
        """An upload that was taken away again."""
        return {self.model: "", self.bundle: ""}

    def choose_upload(self, path: str) -> Shown:
        """A model that was uploaded."""
        return {self.model: path, self.bundle: "", self.chosen: None, self.earlier: None}

    def choose_export(self, source: str | None) -> Shown:
        """An export to go on with."""
        return {self.bundle: source or "", self.model: "", self.upload: None, self.chosen: None}

    def choose(
        self, source: str | None, variant: str | None, request: gr.Request
    ) -> Iterator[Shown]:
        """A model on the server; or an address that was typed there."""
        source = (source or "").strip()
        if source:
            yield from self._fetched(source, variant, request, again=False)
        yield {self.model: source, self.bundle: "", self.upload: None, self.earlier: None}

    def choose_address(
        self, address: str | None, variant: str | None, request: gr.Request
    ) -> Iterator[Shown]:
        """A model that is fetched now, or asked for whether it is still the newest."""
        address = (address or "").strip()
        yield from self._fetched(address, variant, request, again=True)
        yield {
            self.model: address,
            self.bundle: "",
            self.upload: None,
            self.chosen: None,
            self.earlier: None,
        }

    def _fetched(
        self, source: str, variant: str | None, request: gr.Request, *, again: bool
    ) -> Iterator[Shown]:
        """Fetch an address, with `again` even if it is here; what is none is left alone."""
        words = words_for(request)
        try:
            if not again and not self._composing.needs_fetching(source, variant or ""):
                return
            yield {self.stop: gr.update(visible=True)}
            for fetching in self._composing.fetch(source, variant or ""):
                yield {self.found: panels.fetching(words, source, fetching.view)}
        except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
            yield {
                self.found: panels.problem(words, self._composing.desk.told(e)),
                self.model: "",
                self.bundle: "",
                self.stop: gr.update(visible=False),
            }
            refused(e, self._composing.desk)
        yield {self.stop: gr.update(visible=False)}
