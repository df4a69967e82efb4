"""The try-it box: a prompt drawn with the artifacts of the job that is open."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from converter.errors import InputError
from converter.parsing import finite_number
from runtime.schedulers import SCHEDULERS
from sdconv.page.drawing import Wish
from sdconv.page.form import whole
from sdconv.page.views.base import (
    LATEST,
    QUIET,
    UPLOAD_LABEL,
    Filled,
    Shown,
    asks,
    refused,
    word,
)
from sdconv.page.watching import Panels, Result, Watching


class TryBox:
    """What to draw, and what was drawn."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self.refusal = gr.HTML()
        with gr.Row(elem_classes="sdc-columns") as self.box:
            with gr.Column(scale=2, min_width=300):
                self.prompt = gr.Textbox(
                    label=word("try.prompt"),
                    placeholder=word("try.prompt-example"),
                    lines=2,
                    elem_id="try-prompt",
                )
                with gr.Row():
                    self.target = gr.Dropdown([], label=word("try.target"), elem_id="try-target")
                    self.size = gr.Dropdown([], label=word("try.size"))
                with gr.Accordion(word("try.more"), open=False):
                    self._lay_out_sampling()
                self.estimate = gr.HTML(elem_id="estimate")
                with gr.Row():
                    self.draw = gr.Button(word("try.draw"), variant="primary", elem_id="draw")
                    self.stop = gr.Button(
                        word("try.stop"), visible=False, elem_classes="sdc-danger"
                    )
            with gr.Column(scale=3, min_width=300):
                self.drawing = gr.HTML(elem_id="drawing")

    def _lay_out_sampling(self) -> None:
        self.negative = gr.Textbox(label=word("try.negative"))
        self.scheduler = gr.Dropdown(
            [(word("try.auto"), ""), *SCHEDULERS], value="", label=word("try.scheduler")
        )
        with gr.Row():
            self.steps, self.guidance, self.seed = (
                gr.Textbox(label=word(f"try.{name}"), placeholder=usual, max_lines=1)
                for name, usual in (
                    ("steps", word("try.auto")),
                    ("guidance", word("try.auto")),
                    ("seed", "0"),
                )
            )
        with gr.Column(visible=False, elem_classes="sdc-plain") as self.following:
            gr.HTML(f"<p class='sdc-hint'>{word('try.hint')}</p>")
            self.hint = gr.File(height=110, **UPLOAD_LABEL)
            self.strength = gr.Slider(0, 2, value=1, step=0.05, label=word("try.strength"))

    def connect(self, opened: Block) -> list[Any]:
        """The events after which the job that is `opened` is to be looked at again."""
        self._opened = opened
        wished: set[Block] = {
            opened, self.prompt, self.target, self.size, self.negative, self.scheduler,
            self.steps, self.guidance, self.seed, self.hint, self.strength,
        }  # fmt: skip
        self.target.input(self.choose_target, [opened, self.target], self.size, **QUIET)
        chosen = [c.change for c in (self.target, self.size, self.scheduler)]
        typed = [c.blur for c in (self.steps, self.guidance)]
        gr.on([*chosen, *typed], self.estimated, wished, self.estimate, **LATEST)
        return [
            gr.on([self.draw.click, self.prompt.submit], self.start, wished, **QUIET),
            self.stop.click(self.end, opened, **QUIET),
        ]

    @property
    def shown(self) -> list[Block]:
        """What is shown of a job."""
        return [self.refusal, self.box, self.target, self.size, self.following, self.estimate,
                self.drawing, self.draw, self.stop]  # fmt: skip

    def result(self, result: Result) -> Shown:
        """What can be drawn with a job."""
        targets = [*result.sizes]
        first = targets[0] if targets else None
        return {
            self.refusal: result.refusal,
            self.box: gr.update(visible=bool(targets)),
            self.target: gr.update(choices=targets, value=first),
            self.size: _sizes(result.sizes.get(first or "", ())),
            self.following: gr.update(visible=result.follows),
            self.estimate: "",
        }

    def pictures(self, now: Panels) -> Shown:
        """What was drawn and is being drawn."""
        return {
            self.drawing: now.drawing,
            self.draw: gr.update(interactive=not now.draws),
            self.stop: gr.update(visible=now.draws),
        }

    def choose_target(self, opened: str, target: str, request: gr.Request) -> Any:
        """The sizes that another target has."""
        return _sizes(self._watching.sizes(opened, asks(request)).get(target, ()))

    def _wish(self, filled: Filled) -> Wish:
        guidance = finite_number(filled[self.guidance]) if filled[self.guidance] else None
        return Wish(
            prompt=filled[self.prompt] or "",
            target=filled[self.target] or "",
            size=filled[self.size] or "",
            negative=filled[self.negative] or "",
            scheduler=filled[self.scheduler] or "",
            steps=whole(filled[self.steps] or ""),
            guidance=guidance,
            seed=whole(filled[self.seed] or "") or 0,
            strength=float(filled[self.strength]),
        )

    def estimated(self, filled: Filled, request: gr.Request) -> str:
        """How long a picture will take."""
        try:
            wish = self._wish(filled)
        except InputError as e:
            refused(e, self._watching.desk)
        return self._watching.estimate(filled[self._opened], wish, asks(request))

    def start(self, filled: Filled, request: gr.Request) -> None:
        """Draw."""
        desk = self._watching.desk
        try:
            wish, hint = self._wish(filled), filled[self.hint]
            desk.draw(filled[self._opened], wish, asks(request), hint)
        except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
            refused(e, self._watching.desk)

    def end(self, opened: str, request: gr.Request) -> None:
        """Stop drawing."""
        try:
            self._watching.desk.stop_drawing(opened, asks(request))
        except Exception as e:  # noqa: BLE001  (likewise)
            refused(e, self._watching.desk)


def _sizes(offered: Sequence[str]) -> Any:
    sizes = [*offered]
    return gr.update(choices=sizes, value=sizes[0] if sizes else None)
