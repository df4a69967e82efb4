"""The web page: a checkpoint in, judged artifacts out, by the same calls as the command line.

    python gradio_app.py --root FOLDER

Three views: Convert (choose a model, see what it is, choose what to make, see what that needs),
Job (its progress and result), History. See `sdconv/page/README.md`.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import gradio as gr
from gradio import processing_utils
from gradio.blocks import Block
from starlette.middleware import Middleware

from converter.errors import InputError
from sdconv.page import panels
from sdconv.page.accounts import Accounts
from sdconv.page.api import Api
from sdconv.page.composing import Composing
from sdconv.page.conversion import BUNDLE_OF_JOB
from sdconv.page.desk import Desk
from sdconv.page.limits import Limits
from sdconv.page.views import programs
from sdconv.page.views.base import QUIET, TRANSLATIONS, Filled, Shown, asks, word, words_for
from sdconv.page.views.convert import ConvertTab
from sdconv.page.views.job import JobTab, consent
from sdconv.page.views.model_card import EARLIER
from sdconv.page.watching import Watching
from sdconv.page.web import Downloads, Guard
from sdconv.page.workspace import Workspace

HERE = Path(panels.__file__).parent

THEME = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    radius_size="lg",
    # Fonts of the visitor's system: the page works without a network.
    font=["system-ui", "Segoe UI", "Roboto", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
          "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_500",
)  # fmt: skip

CONVERT, JOB, HISTORY = "convert", "job", "history"
"""The views."""

OPENINGS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-job]");
  if (button) trigger("open", {job: button.dataset.job});
});
"""

ADDRESS_OF_JOB = """(job) => {
  const here = new URL(location);
  if (job) here.searchParams.set("job", job); else here.searchParams.delete("job");
  history.replaceState(null, "", here);
}"""
"""The job that is open stands in the page's address, so a reload shows it again."""


class Page:
    """The three views, and the ways from one to another."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._watching = Watching(desk)
        with gr.Blocks(title="sdconv", analytics_enabled=False) as self.blocks:
            self.head = gr.HTML(elem_id="head")
            with gr.Tabs(selected=CONVERT) as self.tabs:
                with gr.Tab(word("tab.convert"), id=CONVERT):
                    self.convert = ConvertTab(Composing(desk))
                with gr.Tab(word("tab.job"), id=JOB):
                    self.job = JobTab(self._watching)
                with gr.Tab(word("tab.history"), id=HISTORY) as self.history_tab:
                    self.history = gr.HTML(js_on_load=OPENINGS, elem_id="history")
            self._connect()
            programs.offer(Api(desk))

    def _connect(self) -> None:
        job, convert = self.job, self.convert
        shown: list[Block] = [job.opened, self.tabs]
        began = self.blocks.load(self.begin, outputs=[self.head, *convert.begun, *shown], **QUIET)
        job.watch_after(began)
        self.history_tab.select(self.list_history, job.opened, self.history, **QUIET)
        started = convert.make.start.click(
            self.start,
            convert.fields,
            [*shown, convert.make.refusal],
            show_progress_on=convert.make.start,
            api_visibility="private",
        )
        picked = self.history.open(self.open, outputs=shown, **QUIET)
        removed = job.remove.click(
            self.remove, job.opened, shown, js=consent("job.remove-sure"), **QUIET
        )
        for event in (started, picked, removed):
            job.watch_after(event).then(None, job.opened, js=ADDRESS_OF_JOB, **QUIET)
        removed.then(self.list_history, job.opened, self.history, **QUIET)
        model = convert.model
        going_on = job.compile.click(
            self.go_on,
            job.opened,
            [model.earlier, model.bundle, model.model, model.ways, self.tabs],
            **QUIET,
        )
        convert.settle_after(going_on)

    def begin(self, request: gr.Request) -> Shown:
        """The page when it is opened, at the job that its address names."""
        job = str(request.query_params.get("job", ""))
        return {
            self.head: panels.head(words_for(request), request.username),
            **self.convert.begin(request),
            self.job.opened: job,
            self.tabs: gr.Tabs(selected=JOB if job else CONVERT),
        }

    def start(self, filled: Filled, request: gr.Request) -> Shown:
        """Start what the form says and show it; or say why not."""
        job, refusal = self.convert.submit(filled, request)
        told: Shown = {self.convert.make.refusal: refusal}
        return told if job is None else {**told, **self._opened(job)}

    def _opened(self, job: str) -> Shown:
        return {self.job.opened: job, self.tabs: gr.Tabs(selected=JOB)}

    def open(self, event: gr.EventData) -> Shown:
        """A job of the history."""
        return self._opened(str(event._data["job"]))

    def remove(self, opened: str, request: gr.Request) -> Shown:
        """Remove the job that is open, if that was meant."""
        if not opened:
            return {self.job.opened: gr.skip()}
        self.job.doing(self.desk.remove)(opened, request)
        return {self.job.opened: "", self.tabs: gr.Tabs(selected=HISTORY)}

    def go_on(self, opened: str, request: gr.Request) -> Shown:
        """The second step of the export that is open."""
        model, source = self.convert.model, BUNDLE_OF_JOB + opened
        return {
            model.earlier: gr.update(choices=model.exports(request), value=source),
            model.bundle: source,
            model.model: "",
            model.ways: gr.Tabs(selected=EARLIER),
            self.tabs: gr.Tabs(selected=CONVERT),
        }

    def list_history(self, opened: str, request: gr.Request) -> str:
        """The visitor's jobs as they are now."""
        return self._watching.history(opened, asks(request))

    def close(self) -> None:
        """Interrupt what runs and end the server; returns when nothing runs any more."""
        self.desk.close()
        self.blocks.close(verbose=False)


async def _fetch_nothing(url: str, cache_dir: str) -> NoReturn:
    """Take the place of Gradio's own download of an address that stands where an upload should.

    It knows neither our limits nor our policy.
    """
    del cache_dir
    raise gr.Error(f"{url}: give an address as a text", print_exception=False)


def serve(
    host: str,
    port: int,
    root: Path,
    limits: Limits | None = None,
    accounts: Accounts | None = None,
    *,
    block: bool = True,
) -> Page:
    """Serve the page until Ctrl-C, or in the background; raises InputError if it cannot be."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    workspace, limits = Workspace.at(root), limits or Limits()
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.uploads)  # else uploads land outside the root
    processing_utils.async_ssrf_protected_download = _fetch_nothing
    ended = _told_to_end() if block else None
    desk = Desk(workspace, limits)
    page = Page(desk)
    page.blocks.queue(default_concurrency_limit=16)
    try:
        page.blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            auth=None if accounts is None else accounts.admits,
            max_file_size=limits.largest,
            app_kwargs={
                "routes": Downloads(desk, closed=accounts is not None).routes(),
                "middleware": [Middleware(Guard, desk=desk)],
            },
            i18n=TRANSLATIONS,
            theme=THEME,
            css_paths=panels.STYLE,
            js=(HERE / "page.js").read_text(),
            favicon_path=HERE / "icon.svg",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
        )
    except OSError as e:
        page.close()
        raise InputError(f"{host}:{port} cannot be served ({e}): choose another --port") from e
    if ended is not None:
        ended.wait()
        page.close()
    return page


def _told_to_end() -> threading.Event:
    """What Ctrl-C and the end of a container set, so that whatever runs can be ended first."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


if __name__ == "__main__":
    # The same as `sdconv ui`, so that options, messages and exit codes are written once.
    from sdconv.main import run

    sys.exit(run(["ui", *sys.argv[1:]]))
