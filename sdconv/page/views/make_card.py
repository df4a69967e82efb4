"""The cards in which is chosen what to make, and which tell what that needs."""

from typing import Any

import gradio as gr
from gradio.blocks import Block

from sdconv.page.form import with_precision
from sdconv.page.order import BOTH, EXPORT, FORMATS, Order
from sdconv.page.views.base import QUIET, card, choices, kept, word
from targets.base import EFFORTS

EDITS = """
element.addEventListener("change", (event) => {
  const {target, component} = event.target.dataset;
  if (target) trigger("edit", {target, component, value: event.target.value});
});
"""


BATCHES = ("1", "2", "4", "8")


class MakeCard:
    """`precision` is the table of precisions as JSON, `offered` the components that there are."""

    def __init__(self) -> None:
        self.precision, self.offered = kept(2)
        with card("step.make", "3"):
            self.steps = gr.Radio(
                choices((BOTH, EXPORT), "make."),
                value=BOTH,
                label=word("make.steps"),
                elem_id="steps",
            )
            self.format = gr.Radio(
                choices(FORMATS, "make.format-"),
                value="onnx",
                label=word("make.format"),
                visible=False,
                elem_id="format",
            )
            with gr.Column(elem_classes="sdc-plain") as self.compiling:
                self._lay_out_compiling()
            self.profile = gr.Radio(
                [],
                label=word("make.profile"),
                info=word("make.profile-info"),
                visible=False,
                elem_id="profile",
            )
            with gr.Accordion(word("make.precision"), open=False) as self.precision_fold:
                self.precisions = gr.HTML(js_on_load=EDITS, elem_id="precisions")
            with gr.Accordion(word("make.more"), open=False):
                self._lay_out_more()
        with card("step.plan", "4"):
            self.plan = gr.HTML(elem_id="plan")
            self.refusal = gr.HTML(elem_id="refusal")
            self.start = gr.Button(
                word("make.start"), variant="primary", size="lg", elem_id="start"
            )

    def _lay_out_compiling(self) -> None:
        self.targets = gr.CheckboxGroup([], label=word("make.targets"), elem_id="targets")
        self.unready = gr.HTML()
        self.sizes = gr.CheckboxGroup(
            [], label=word("make.sizes"), info=word("make.sizes-info"), elem_id="sizes"
        )
        self.more_sizes = gr.Textbox(
            label=word("make.more-sizes"),
            info=word("make.more-sizes-info"),
            max_lines=1,
            elem_id="more-sizes",
        )

    def _lay_out_more(self) -> None:
        self.components = gr.CheckboxGroup(
            [], label=word("make.components"), visible=False, elem_id="components"
        )
        self.prompt = gr.Textbox(label=word("make.prompt"), info=word("make.prompt-info"))
        self.batch = gr.Dropdown(
            [(word("make.batch-usual"), ""), *BATCHES], value="", label=word("make.batch")
        )
        self.effort = gr.Radio(
            choices(EFFORTS, "make.effort-"), value=Order.effort, label=word("make.effort")
        )
        self.minutes = gr.Number(
            Order.emulator_minutes,
            label=word("make.minutes"),
            info=word("make.minutes-info"),
            minimum=0,
        )

    def connect(self) -> Any:
        """The event after another precision was chosen."""
        return self.precisions.edit(self.choose_precision, self.precision, self.precision, **QUIET)

    def choose_precision(self, chosen: str, event: gr.EventData) -> str:
        """One component of one target in another precision."""
        said = event._data
        return with_precision(
            chosen, str(said["target"]), str(said["component"]), str(said["value"])
        )

    @property
    def planned(self) -> list[Block]:
        """What tells what the form as it is will need."""
        return [self.plan, self.start, self.refusal, self.compiling, self.format,
                self.precision_fold]  # fmt: skip
