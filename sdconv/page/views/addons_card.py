"""The card in which files are added to a checkpoint, and how the checkpoint itself is read."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.blocks import Block

from sdconv.page import panels
from sdconv.page.composing import Composing
from sdconv.page.form import AS_TOLD
from sdconv.page.views.base import FETCHING, QUIET, Shown, card, kept, word, words_for

EDITS = """
const tell = (act, item, value) => {
  const index = Number(item.closest("[data-index]").dataset.index);
  trigger(act === "remove" ? "remove" : "edit", {act, index, value});
};
element.addEventListener("input", (event) => {
  if (event.target.type === "range") event.target.nextElementSibling.value = event.target.value;
});
element.addEventListener("change", (event) => {
  const field = event.target;
  if (field.type === "range") tell("scale", field, field.value);
  if (field.dataset.edit === "scale") field.previousElementSibling.value = field.value;
  if (field.dataset.edit) tell(field.dataset.edit, field, field.value);
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) tell(button.dataset.act, button, "");
});
"""
"""Tells what is edited in the list. Only a removal has the list drawn anew: sliders keep focus."""


CLIP_SKIPS = tuple(map(str, range(1, 7)))


class AddonsCard:
    """`addons` is the list of what was added, as JSON (`sdconv.page.addons`)."""

    def __init__(self, composing: Composing) -> None:
        self._composing = composing
        (self.addons,) = kept(1)
        with card("add.title"):
            gr.HTML(f"<p class='sdc-hint'>{word('add.lead')}</p>")
            self.added = gr.HTML(js_on_load=EDITS, elem_id="added")
            self.refusal = gr.HTML(elem_id="add-refusal")
            with gr.Row(elem_classes="sdc-add"):
                self.upload = gr.UploadButton(
                    word("add.upload"), file_count="multiple", size="md", elem_id="add-upload"
                )
                self.chosen = gr.Dropdown(
                    [],
                    value=None,
                    label=word("add.chosen"),
                    info=word("add.chosen-info"),
                    allow_custom_value=True,
                    scale=3,
                    elem_id="add-chosen",
                )
            self.lcm = gr.Checkbox(label=word("lcm"), info=word("lcm-info"), elem_id="lcm")
            with gr.Accordion(word("read.title"), open=False):
                self._lay_out_reading()

    def _lay_out_reading(self) -> None:
        self.ema = gr.Checkbox(label=word("read.ema"), visible=False)
        self.variant = gr.Textbox(label=word("read.variant"), info=word("read.variant-info"))
        self.clip_skip = gr.Dropdown(
            [(word("read.clip-skip-usual"), ""), *CLIP_SKIPS],
            value="",
            label=word("read.clip-skip"),
            info=word("read.clip-skip-info"),
        )
        self.prediction = gr.Radio(
            [(word("read.prediction-auto"), AS_TOLD), "epsilon", "v_prediction"],
            value=AS_TOLD,
            label=word("read.prediction"),
            info=word("read.prediction-info"),
        )
        self.zero_snr = gr.Checkbox(label=word("read.zero-snr"))
        self.base = gr.Dropdown(
            [],
            value=None,
            label=word("read.base"),
            info=word("read.base-info"),
            allow_custom_value=True,
        )
        self.allow_unused = gr.Checkbox(label=word("read.allow-unused"))

    def connect(self, family: Block, kind: Block) -> tuple[list[Any], Any]:
        """The events after which something else is added, and the one after another scale.

        `family` and `kind` are those of the model.
        """
        shown: list[Block] = [self.addons, self.refusal, self.chosen, self.lcm]
        added = [
            self.upload.upload(self.add, [self.addons, self.upload, self.variant], shown, **QUIET),
            self.chosen.input(
                self.add_named, [self.addons, self.chosen, self.variant], shown, **FETCHING
            ),
            self.lcm.input(
                self.switch_lcm,
                [self.addons, self.lcm, family, kind, self.variant],
                shown,
                **FETCHING,
            ),
            self.added.remove(self.edit, self.addons, self.addons, **QUIET),
        ]
        return added, self.added.edit(self.edit, self.addons, self.addons, **QUIET)

    def add(
        self, added: str, sources: list[str] | None, variant: str | None, request: gr.Request
    ) -> Shown:
        """Add files, each to where it belongs by what it is."""
        words = words_for(request)
        text, refusals = self._composing.add(added, sources or [], variant or "")
        told_ = "".join(panels.problem(words, line) for line in refusals)
        return {self.addons: text, self.refusal: told_, self.chosen: None}

    def add_named(
        self, added: str, source: str | None, variant: str | None, request: gr.Request
    ) -> Iterator[Shown]:
        """Add a file on the server, or an address, which is fetched first."""
        words = words_for(request)
        source = (source or "").strip()
        if not source:
            return
        try:
            if self._composing.needs_fetching(source, variant or ""):
                for fetching in self._composing.fetch(source, variant or ""):
                    yield {self.refusal: panels.fetching(words, source, fetching.view)}
        except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
            yield {
                self.refusal: panels.problem(words, self._composing.desk.told(e)),
                self.chosen: None,
            }
            return
        yield self.add(added, [source], variant, request)

    def switch_lcm(
        self,
        added: str,
        on: bool,
        family: str,
        kind: str,
        variant: str | None,
        request: gr.Request,
    ) -> Iterator[Shown]:
        """Add the LCM-LoRA that was published for the model, or take every LCM-LoRA away."""
        words = words_for(request)
        if not on:
            yield {self.addons: self._composing.without_lcm(added), self.refusal: ""}
            return
        source = self._composing.lcm_source(family, kind)
        if source is None:
            yield {self.lcm: False, self.refusal: panels.problem(words, words("lcm.unknown"))}
            return
        yield from self.add_named(added, source, variant, request)

    def edit(self, added: str, event: gr.EventData) -> str:
        """Another scale or name, or one less."""
        said = event._data
        return self._composing.edit(added, str(said["act"]), int(said["index"]), str(said["value"]))
