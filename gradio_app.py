"""The web page: a checkpoint in, judged artifacts out, by the same calls as the command line.

    python gradio_app.py --root FOLDER

Visitors read files below FOLDER and nothing else; every conversion writes into a folder of its
own, `FOLDER/jobs/<time>-<random>`. What is derived and shared goes where `SDCONV_HOME` says.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from converter.errors import InputError
from converter.export import ExportRequest
from converter.inspection import inspect
from converter.profiles import PROFILES
from sdconv.page import panels
from sdconv.page.conversion import IDLE, STOPPED, Moment, convert
from sdconv.page.job import Form, Job, Outcome, pack
from sdconv.page.live import Worker
from sdconv.page.workspace import Workspace
from targets.registry import get_target

MOST_LORAS = 8
"""Scales shown at most."""

DAY = 24 * 60 * 60
"""Seconds that an upload is kept; a job keeps its own."""

THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="slate",
    # Fonts of the visitor's system: the page works without a network.
    font=["system-ui", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
)

Filled = Mapping[Block, Any]
"""What the visitor filled in, by component."""

Shown = dict[Block, Any]
"""What is to be shown, by component; everything else stays as it is."""


class Page:
    """The page's components, and what happens when they are used."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._worker = Worker()
        with gr.Blocks(
            title="sdconv", analytics_enabled=False, delete_cache=(DAY // 24, DAY)
        ) as self.blocks:
            gr.HTML(
                "<h1>sdconv</h1><p>A Stable Diffusion checkpoint becomes artifacts for an "
                "accelerator, checked against the original network.</p>",
                elem_classes="sdc-head",
            )
            with gr.Row():
                with gr.Column(scale=2, min_width=360):
                    self._lay_out_sources()
                    self._lay_out_options()
                with gr.Column(scale=3, min_width=420):
                    self._lay_out_state()
            self._lay_out_results()
            self._connect()

    def _lay_out_sources(self) -> None:
        offered = self._workspace.offered()
        self.upload = gr.File(label="Checkpoint (.safetensors)", height=130)
        self.chosen = gr.Dropdown(
            offered,
            value=None,
            allow_custom_value=True,
            label="or a file on the server",
            info=f"below {self._workspace.root}",
        )
        with gr.Accordion("LoRAs", open=False):
            self.lora_uploads = gr.File(
                label="LoRAs (.safetensors)", file_count="multiple", height=120
            )
            self.loras_chosen = gr.Dropdown(
                offered, value=[], multiselect=True, label="or files on the server"
            )
            self.scales = [
                gr.Slider(-2, 2, value=1, step=0.05, label="scale", visible=False)
                for _ in range(MOST_LORAS)
            ]
            self.scaled = gr.State([])

    def _lay_out_options(self) -> None:
        self.target = gr.Radio([], label="Target")
        self.unready = gr.HTML(visible=False)
        self.sizes = gr.Textbox(
            "512x512", label="Picture sizes", info="WIDTHxHEIGHT, comma-separated"
        )
        self.profile = gr.Radio(
            [(f"{p.name}: {p.consumer}", p.name) for p in PROFILES.values()],
            value=ExportRequest.profile,
            label="Interface profile",
            info="whose ports the artifacts must have",
        )
        with gr.Accordion("More", open=False):
            self.precision = gr.Textbox(
                "",
                label="Precision",
                info="of single components, for example unet=f16,vae_decoder=f32",
            )
            self.batch = gr.Number(
                None,
                label="UNet batch",
                info="empty: the profile's",
                precision=0,
                minimum=1,
                maximum=64,
            )
            self.emulator_minutes = gr.Number(
                Form.emulator_minutes,
                label="Minutes on the chip emulator",
                info="at most, for each artifact",
                minimum=0,
            )
            self.allow_unused = gr.Checkbox(label="Merge a LoRA although some keys do not fit")

    def _lay_out_state(self) -> None:
        self.status = gr.HTML(panels.status(IDLE))
        with gr.Row():
            self.run = gr.Button("Convert", variant="primary")
            self.stop = gr.Button("Stop", variant="stop", visible=False)
        self.found = gr.HTML()
        self.commands = gr.HTML(visible=False)

    def _lay_out_results(self) -> None:
        with gr.Tabs(visible=False) as self.results:
            with gr.Tab("Report"):
                self.report = gr.HTML()
            with gr.Tab("Files"):
                self.files = gr.HTML()
                self.pack = gr.Button("Pack all files into one zip", size="sm")
        self.done = gr.State(None)

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        listed: list[Block] = [self.target, self.unready, self.chosen, self.loras_chosen]
        self.blocks.load(self.refresh, outputs=listed, **quiet)
        # The last choice counts: choosing one way clears the other.
        self.upload.upload(lambda: None, outputs=self.chosen, **quiet)
        self.chosen.input(lambda: None, outputs=self.upload, **quiet)
        gr.on(
            [self.upload.change, self.chosen.change],
            self.inspect,
            [self.upload, self.chosen],
            self.found,
            show_progress="hidden",
            api_name="inspect",
        )
        loras: set[Block] = {self.lora_uploads, self.loras_chosen, *self.scales}
        gr.on(
            [self.lora_uploads.change, self.loras_chosen.change],
            self.show_scales,
            loras | {self.scaled},
            [self.scaled, *self.scales],
            **quiet,
        )
        self.target.change(self.suit_profile, self.target, self.profile, **quiet)
        filled = loras | {self.upload, self.chosen, self.target, self.sizes, self.profile}
        filled |= {self.precision, self.batch, self.emulator_minutes, self.allow_unused}
        state: list[Block] = [self.status, self.run, self.stop]
        results = [self.commands, self.results, self.report, self.files, self.pack, self.done]
        converting = self.run.click(self.convert, filled, state + results, **quiet)
        self.stop.click(self.stopped, outputs=state, cancels=[converting], **quiet)
        self.pack.click(
            self.pack_files, self.done, [self.files, self.pack], api_visibility="private"
        )

    def refresh(self) -> Shown:
        """Look again at what is ready and which files there are."""
        states = panels.target_states()
        ready = [s.target for s in states if s.needs is None]
        offered = self._workspace.offered()
        return {
            self.target: gr.update(
                choices=[(f"{t.name}: {t.summary}", t.name) for t in ready],
                value=ready[0].name if ready else None,
            ),
            self.unready: gr.update(value=panels.unready(states), visible=len(ready) < len(states)),
            self.chosen: gr.update(choices=offered),
            self.loras_chosen: gr.update(choices=offered),
        }

    def inspect(self, upload: str | None, chosen: str | None) -> str:
        """Tell what a file is, or why it cannot be told."""
        name = upload or chosen
        if not name:
            return ""
        try:
            return panels.inspection(inspect(self._workspace.find(name)))
        except InputError as e:
            return panels.problem(str(e))

    def show_scales(self, filled: Filled) -> Shown:
        """One slider a LoRA. Those that were there before keep their scale."""
        before = dict(zip(filled[self.scaled], (filled[s] for s in self.scales), strict=False))
        names = self._loras(filled)
        shown: Shown = {slider: gr.update(visible=False, value=1) for slider in self.scales}
        for slider, name in zip(self.scales, names, strict=False):
            label = f"Scale of {Path(name).name}"
            shown[slider] = gr.update(visible=True, value=before.get(name, 1), label=label)
        return {**shown, self.scaled: names}

    def suit_profile(self, target: str | None) -> Any:
        """Choose the profile that the hosts of a target expect, where there is one."""
        expected = None if target is None else get_target(target).expected_profile
        return gr.skip() if expected is None else expected

    def convert(self, filled: Filled) -> Iterator[Shown]:
        """Check, export, compile, validate; yields what is to be seen on the way."""
        for moment in convert(self._form(filled), self._workspace, self._worker):
            yield {
                self.status: panels.status(moment.status),
                self.run: gr.update(interactive=moment.ended),
                self.stop: gr.update(visible=not moment.ended),
                **self._outcome(moment),
            }

    def _outcome(self, moment: Moment) -> Shown:
        job, outcome = moment.job, moment.outcome
        if job is None or outcome is None:
            commands = "" if job is None else panels.commands(job)
            return {
                self.commands: gr.update(value=commands, visible=job is not None),
                self.results: gr.update(visible=False),
            }
        return {
            self.results: gr.update(visible=True),
            self.report: panels.report(outcome.html),
            self.files: panels.files(job, outcome),
            self.pack: gr.update(visible=True),
            self.done: (job, outcome),
        }

    def stopped(self) -> Shown:
        """The page after Stop; the conversion itself ends when its iterator is closed."""
        return {
            self.status: panels.status(STOPPED),
            self.run: gr.update(interactive=True),
            self.stop: gr.update(visible=False),
        }

    def pack_files(self, done: tuple[Job, Outcome]) -> Shown:
        """Zip what the last conversion made and offer it."""
        try:
            packed = pack(done[0])
        except (InputError, OSError) as e:
            raise gr.Error(str(e), print_exception=False) from e
        return {
            self.files: panels.files(*done, packed=packed),
            self.pack: gr.update(visible=False),
        }

    def _form(self, filled: Filled) -> Form:
        """The form as it stands; a field that was emptied counts as untouched."""
        minutes = filled[self.emulator_minutes]
        return Form(
            checkpoint=filled[self.upload] or filled[self.chosen],
            target=filled[self.target],
            profile=filled[self.profile],
            sizes=filled[self.sizes] or "",
            loras=tuple(self._loras(filled)),
            scales=tuple(float(filled[slider]) for slider in self.scales),
            precision=filled[self.precision] or "",
            batch=filled[self.batch] or None,
            allow_unused=filled[self.allow_unused],
            emulator_minutes=Form.emulator_minutes if minutes is None else minutes,
        )

    def _loras(self, filled: Filled) -> list[str]:
        return [*(filled[self.lora_uploads] or ()), *(filled[self.loras_chosen] or ())]

    def close(self) -> None:
        """Stop what is running; returns when nothing runs any more."""
        self._worker.close()


def serve(host: str, port: int, root: Path, *, block: bool = True) -> Page:
    """Serve the page until Ctrl-C, or in the background; raises InputError if it cannot be."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    workspace = Workspace.at(root)
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.uploads)  # else uploads land outside the root
    page = Page(workspace)
    # The worker does one conversion at a time; those that wait for it are to see that they do.
    page.blocks.queue(default_concurrency_limit=20)
    try:
        page.blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=not block,
            allowed_paths=[str(workspace.jobs)],
            theme=THEME,
            css_paths=panels.STYLE,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
        )
    except OSError as e:
        page.close()
        raise InputError(f"{host}:{port} cannot be served ({e}): choose another --port") from e
    if block:
        page.close()
    return page


if __name__ == "__main__":
    # The same as `sdconv ui`, so that options, messages and exit codes are written once.
    from sdconv.main import run

    sys.exit(run(["ui", *sys.argv[1:]]))
