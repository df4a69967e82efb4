"""The view in which a conversion is put together and started."""

from dataclasses import fields
from typing import Any

import gradio as gr
from gradio.blocks import Block

from converter.errors import InputError
from sdconv.page import panels
from sdconv.page.choices import target_states
from sdconv.page.composing import Composing, Settled
from sdconv.page.form import Form
from sdconv.page.order import EXPORT
from sdconv.page.views.addons_card import AddonsCard
from sdconv.page.views.base import LATEST, Filled, Shown, asks, refused, word, words_for
from sdconv.page.views.make_card import MakeCard
from sdconv.page.views.model_card import ModelCard


class ConvertTab:
    """Four cards whose fields make a form."""

    def __init__(self, composing: Composing) -> None:
        self._composing = composing
        with gr.Row(elem_classes="sdc-columns"):
            with gr.Column(scale=1, min_width=340):
                self.model = ModelCard(composing)
                self.added = AddonsCard(composing)
            with gr.Column(scale=1, min_width=340):
                self.make = MakeCard()
        cards = (self.model, self.added, self.make)
        self._fields: dict[str, Block] = {
            f.name: next(getattr(c, f.name) for c in cards if hasattr(c, f.name))
            for f in fields(Form)
        }
        self._connect()

    @property
    def fields(self) -> set[Block]:
        """Every component of the form."""
        return {*self._fields.values()}

    @property
    def begun(self) -> list[Block]:
        """What is shown when the page is opened."""
        model, added, make = self.model, self.added, self.make
        return [model.found, model.chosen, model.earlier, added.added, added.chosen, added.base,
                make.targets, make.unready, make.plan, make.precisions]  # fmt: skip

    def begin(self, request: gr.Request) -> Shown:
        """What is ready and which files there are, now."""
        words, states = words_for(request), target_states()
        ready = [s.target for s in states if s.needs is None or s.target.made_without]
        offered = gr.update(choices=self._composing.desk.workspace.offered())
        return {
            self.model.found: panels.hint(words, "model.none"),
            self.model.chosen: offered,
            self.model.earlier: gr.update(choices=self.model.exports(request)),
            self.added.added: panels.addons(words, (), ""),
            self.added.chosen: offered,
            self.added.base: offered,
            self.make.targets: gr.update(
                choices=[(f"{target.name}: {target.summary}", target.name) for target in ready]
            ),
            self.make.unready: panels.unready(words, states),
            self.make.plan: panels.hint(words, "plan.later"),
            self.make.precisions: panels.hint(words, "make.precision-later"),
        }

    def _form(self, filled: Filled) -> Form:
        return Form.of({name: filled[field] for name, field in self._fields.items()})

    def _connect(self) -> None:
        model, added, make = self.model, self.added, self.make
        fetched = model.connect(added.variant)
        changed, edited = added.connect(model.family, model.kind)
        for event in (*fetched, *changed):
            self.settle_after(event)
        make.targets.input(self.settle_targets, self.fields, self.follows, **LATEST).then(
            self.foresee, self.fields, make.planned, **LATEST
        )
        gr.on(
            [make.profile.input, make.components.input, added.ema.input, added.variant.submit],
            self.settle,
            self.fields,
            self.follows,
            **LATEST,
        ).then(self.foresee, self.fields, make.planned, **LATEST)
        for event in (edited, make.connect()):
            event.then(self.foresee, self.fields, make.planned, **LATEST)
        chosen: list[Any] = [make.steps, make.format, make.sizes, make.effort, make.batch,
                             added.prediction, added.zero_snr, added.base, added.allow_unused,
                             added.clip_skip]  # fmt: skip
        typed: list[Any] = [make.more_sizes, make.minutes]
        triggers = [c.input for c in chosen] + [c.blur for c in typed] + [c.submit for c in typed]
        gr.on(triggers, self.foresee, self.fields, make.planned, **LATEST)

    def settle_after(self, event: Any) -> None:
        """Let everything that can be chosen follow what was chosen."""
        event.success(self.settle, self.fields, self.follows, **LATEST).then(
            self.foresee, self.fields, self.make.planned, **LATEST
        )

    @property
    def follows(self) -> list[Block]:
        """What depends on the model, on what was added, and on the targets."""
        model, added, make = self.model, self.added, self.make
        return [model.found, model.family, model.kind, added.added, added.lcm, added.ema,
                make.profile, make.sizes, make.components, make.offered, make.precisions,
                make.steps]  # fmt: skip

    def settle(self, filled: Filled, request: gr.Request) -> Shown:
        """Offer what fits what was chosen."""
        return self._settled(filled, request, retargeted=False)

    def settle_targets(self, filled: Filled, request: gr.Request) -> Shown:
        """The same after other targets were chosen, whose hosts may expect other ports."""
        return self._settled(filled, request, retargeted=True)

    def _settled(self, filled: Filled, request: gr.Request, *, retargeted: bool) -> Shown:
        try:
            form = self._form(filled)
            settled = self._composing.settle(form, asks(request), retargeted=retargeted)
        except InputError as e:
            refused(e, self._composing.desk)
        return {**self._offered(settled), self.make.steps: gr.update(visible=not form.bundle)}

    def _offered(self, settled: Settled) -> Shown:
        model, added, make = self.model, self.added, self.make
        profiles, components = [*settled.profiles], [*settled.components]
        return {
            model.found: settled.found,
            model.family: settled.family,
            model.kind: settled.variant,
            added.added: settled.addons,
            added.lcm: settled.lcm,
            added.ema: gr.update(visible=settled.has_ema),
            make.profile: gr.update(
                choices=profiles, value=settled.profile or None, visible=bool(profiles)
            ),
            make.sizes: gr.update(choices=[*settled.sizes], value=[*settled.chosen_sizes]),
            make.components: gr.update(
                choices=components,
                value=[*settled.chosen_components],
                visible=bool(components),
            ),
            make.offered: " ".join(components),
            make.precisions: settled.precisions,
        }

    def foresee(self, filled: Filled, request: gr.Request) -> Shown:
        """Show what the form as it is will need."""
        try:
            form = self._form(filled)
        except InputError as e:
            refused(e, self._composing.desk)
        make, exporting = self.make, form.steps == EXPORT and not form.bundle
        kind = "-compile" if form.bundle else "-export" if exporting else ""
        return {
            make.plan: self._composing.plan(form, asks(request)),
            make.start: word(f"make.start{kind}"),
            make.refusal: "",
            make.compiling: gr.update(visible=not exporting),
            make.precision_fold: gr.update(visible=not exporting),
            make.format: gr.update(visible=exporting),
        }

    def submit(self, filled: Filled, request: gr.Request) -> tuple[str | None, str]:
        """Start what the form says: the id of the job, or None and why not."""
        try:
            job = self._composing.submit(self._form(filled), asks(request))
        except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
            return None, panels.problem(words_for(request), self._composing.desk.told(e))
        return job.id, ""
