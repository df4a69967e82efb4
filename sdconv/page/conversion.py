"""A conversion as a visitor lives it: moment after moment, each with a status in words."""

import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from converter.errors import InputError
from sdconv.page.job import Form, Job, Outcome, plan_job, run_job
from sdconv.page.live import Running, View, Worker
from sdconv.page.workspace import Workspace
from targets.base import ToolchainError


@dataclass(frozen=True)
class Status:
    """The first thing to look at. `kind` is idle, running, stopped, error or a verdict."""

    kind: str
    title: str
    sentence: str
    view: View | None = None


IDLE = Status("idle", "Ready", "Choose a checkpoint, a target and sizes, then press Convert.")
CHECKING = Status("running", "Checking", "Reading the headers of the chosen files.")
STOPPED = Status("stopped", "Stopped", "Nothing half-made was left under a final name.")


@dataclass(frozen=True)
class Moment:
    """What is known: the job once it is planned, the outcome once there is one."""

    status: Status
    job: Job | None = None
    outcome: Outcome | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status.kind != "running"


def convert(form: Form, workspace: Workspace, worker: Worker) -> Iterator[Moment]:
    """Plan and run what a form asks for. Whatever goes wrong is a sentence of the last moment.

    Closing the iterator stops the work.
    """
    yield Moment(CHECKING)
    try:
        job = plan_job(form, workspace)
    except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
        yield Moment(Status("error", "This cannot be converted", _sentence(e, workspace.root)))
        return
    running = worker.start(partial(run_job, job))
    view = View()
    try:
        for view in running.views():
            yield Moment(_going_on(view), job)
        yield _end(running, job, view, workspace)
    finally:
        running.stop()


def _going_on(view: View) -> Status:
    if not view.step:
        return Status("running", "Waiting", "Another conversion is running; this one waits.", view)
    return Status("running", "Converting", view.stage, view)


def _end(running: Running[Outcome], job: Job, view: View, workspace: Workspace) -> Moment:
    try:
        outcome = running.result()
    except (KeyboardInterrupt, CancelledError):  # the server is shutting down
        return Moment(STOPPED, job)
    except Exception as e:  # noqa: BLE001  (likewise)
        title = f"The {view.step or 'first'} step failed"
        failed = Moment(Status("error", title, _sentence(e, job.folder), view), job)
        if isinstance(e, InputError) and view.step in ("", "export"):
            workspace.discard(job.folder)  # refused: it holds nothing but links to the uploads
        return failed
    verdict = outcome.report.verdict.value
    return Moment(Status(verdict, verdict, f"{outcome.report.sentence}.", view), job, outcome)


def _sentence(error: Exception, folder: Path) -> str:
    """An expected error in its own words. A bug is told too, and its traceback kept in `folder`."""
    if isinstance(error, InputError | ToolchainError | OSError):
        return str(error)
    logging.getLogger(__name__).error("a conversion failed", exc_info=error)
    trace = folder / "traceback.txt"
    trace.write_text("".join(traceback.format_exception(error)))
    return f"A fault of sdconv itself ({type(error).__name__}: {error}): please report {trace}"
