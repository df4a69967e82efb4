"""What visitors can do, for the page and for programs alike. Every call says who asks.

Raises InputError (or ToolchainError) with one sentence for the visitor wherever he may not, or
what he asks for cannot work.
"""

import secrets
import shutil
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from converter.errors import InputError
from converter.files import write_json
from converter.inspection import Inspection, inspect
from sdconv.page.child import Child
from sdconv.page.conversion import bundle_of
from sdconv.page.drawing import Drawing, Wish, checked_picture, drawings, new_drawing
from sdconv.page.fetching import FETCH
from sdconv.page.forecast import Forecast, foresee
from sdconv.page.jobs import Job, Jobs
from sdconv.page.limits import Limits
from sdconv.page.order import COMPILE, Order
from sdconv.page.requests import requests_of
from sdconv.page.retention import Retention
from sdconv.page.run_folder import ENDED, UNFINISHED, Outcome, RunFolder, View
from sdconv.page.schedule import Schedule
from sdconv.page.sources import Sources, is_address
from sdconv.page.telling import told
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace
from targets.registry import get_target

FETCHES = 2
"""Addresses that are fetched at once, beside conversions."""

SWEEP_SECONDS = 3600.0


@dataclass(frozen=True)
class Fetching:
    """An address on its way: what it is at, and its outcome once it has one."""

    view: View
    outcome: Outcome | None = None


class Desk:
    """The workspace, its queue, and who may do what. `close` it when the server ends."""

    def __init__(self, workspace: Workspace, limits: Limits) -> None:
        self.workspace = workspace
        self.limits = limits
        self.jobs = Jobs(workspace)
        self.sources = Sources(workspace)
        self.retention = Retention(self.jobs, limits)
        self._lock = FileLock(workspace.jobs / ".server.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as e:
            raise InputError(
                f"{workspace.root}: another server has this root folder: name another with --root"
            ) from e
        self._queue = Schedule(self._start, limits.running)
        self._fetches = Schedule(self._start, FETCHES)
        self._ordering = threading.Lock()
        self._closing = threading.Event()
        self._recover()
        threading.Thread(target=self._keep_swept, daemon=True).start()

    def _start(self, run: RunFolder) -> Child:
        return Child(self.workspace, run, self.limits)

    def _recover(self) -> None:
        """Go on where an earlier server ended: what waited waits again, what ran can be resumed."""
        shutil.rmtree(self._fetch_folder, ignore_errors=True)
        every = [*self.jobs.every()][::-1]
        self._queue.recover(job.run for job in every)
        for job in every:
            for drawing in drawings(job):
                if drawing.run.state().state in UNFINISHED:
                    shutil.rmtree(drawing.run.path, ignore_errors=True)

    def _keep_swept(self) -> None:
        while True:
            self.retention.sweep()
            if self._closing.wait(SWEEP_SECONDS):
                return

    def close(self) -> None:
        """Interrupt what runs; returns when nothing runs any more."""
        self._closing.set()
        self._fetches.close()
        self._queue.close()
        self._lock.release()

    @property
    def _fetch_folder(self) -> Path:
        return self.workspace.downloads / "runs"

    def fetch(self, address: str, variant: str = "") -> Generator[Fetching]:
        """Fetch an address, or make sure that it is the newest; what it is at, till it ended.

        Closing the iterator stops it.
        """
        if not is_address(address):
            raise InputError(f"{address!r} is no address: write https://... or hf:owner/name")
        self.retention.require_room()
        run = RunFolder(self._fetch_folder / secrets.token_hex(16))
        run.path.mkdir(parents=True)
        write_json(run.path / FETCH, {"address": address, "variant": variant})
        self._fetches.add(run)
        try:
            while not self._fetches.wait(run, 0.5):
                yield Fetching(run.view())
            outcome = run.outcome() or Outcome("failed", "fetching was stopped")
            if not outcome.succeeded:
                raise InputError(outcome.sentence)
            yield Fetching(run.view(), outcome)
        finally:
            self._fetches.stop(run)
            shutil.rmtree(run.path, ignore_errors=True)

    def inspect(self, source: str, variant: str = "") -> Inspection:
        """What a file, a folder or a fetched address is. An upload that is no model is removed."""
        path = self.sources.local(source, variant)
        try:
            return inspect(path, variant or None)
        except InputError:
            if self.workspace.is_upload(path):
                path.unlink(missing_ok=True)
            raise

    def foresee(self, order: Order) -> tuple[Inspection, Forecast]:
        """What an order will need here."""
        folder = self.workspace.jobs / "planned"
        return foresee(order, lambda source: self.locate(source, order), folder)

    def locate(self, source: str, order: Order) -> Path:
        """Where a source of an order that was not given yet is."""
        return self.sources.local(source, order.variant)

    def submit(self, order: Order, visitor: Visitor) -> Job:
        """Check an order as far as its files are here, and queue it."""
        self.retention.require_room()
        forecast = self._checked(order, visitor)
        with self._ordering:
            self._require_place(visitor)
            job = self.jobs.create(order, visitor)
            if forecast is not None:
                job.save_plan(forecast.profile, forecast.stages())
            self._queue.add(job.run)
        return job

    def _checked(self, order: Order, visitor: Visitor) -> Forecast | None:
        """Refuse what cannot work; None where nothing can be foreseen yet."""
        for target in map(get_target, order.targets if order.steps in ("both", COMPILE) else ()):
            if not target.made_without:
                target.check_ready()
        if order.steps == COMPILE:
            requests_of(order, self.sources.local, self.workspace.jobs)
            bundle_of(self.jobs, order, lambda job: visitor.may_see(job.owner))
            return None
        if any(is_address(s) and not self._is_here(s, order) for s in order.sources()):
            requests_of(order, lambda _: self.workspace.root, self.workspace.jobs)
            return None
        return self.foresee(order)[1]

    def _is_here(self, address: str, order: Order) -> bool:
        return self.sources.fetched(address, order.variant) is not None

    def _require_place(self, visitor: Visitor) -> None:
        if self._queue.waiting >= self.limits.waiting:
            raise InputError(
                f"{self._queue.waiting} conversions wait already: try again when one is done"
            )
        # Programs without a cookie share one allowance.
        mine = [j for j in self.jobs.every() if j.owner == visitor.owner and j.unfinished]
        if len(mine) >= self.limits.each:
            raise InputError(
                f"{len(mine)} of your conversions are not done yet, which is the most at once: "
                "wait for one, or stop one"
            )

    def job(self, name: str, visitor: Visitor) -> Job:
        """One of the visitor's jobs as it is now."""
        return self.jobs.find(name, visitor)

    def told(self, error: Exception) -> str:
        """What a visitor is told of an error."""
        return told(error, self.workspace.root)

    def position(self, run: RunFolder) -> int | None:
        """The place of a run in the queue; None if it does not wait."""
        return self._queue.position(run)

    def stop(self, name: str, visitor: Visitor) -> Job:
        """Stop a job, and return it as it is then; nothing of it runs any more."""
        job = self.jobs.find(name, visitor)
        self._queue.stop(job.run)
        return self.jobs.find(name, visitor)

    def resume(self, name: str, visitor: Visitor) -> Job:
        """Run a job that did not succeed again, in the same folder: what is whole is reused."""
        job = self.jobs.find(name, visitor)
        if job.unfinished or (job.state.state == ENDED and job.outcome and job.outcome.succeeded):
            raise InputError("only what was interrupted, was stopped or failed can be resumed")
        self.retention.require_room()
        with self._ordering:
            self._require_place(visitor)
            job.run.forget_outcome()
            self._queue.add(job.run)
        return self.jobs.find(name, visitor)

    def remove(self, name: str, visitor: Visitor) -> None:
        """Remove a finished job and all its files."""
        self.stop_drawing(name, visitor)
        self.jobs.remove(self.jobs.find(name, visitor))

    def draw(self, name: str, wish: Wish, visitor: Visitor, hint: str | None = None) -> Drawing:
        """Queue a picture, drawn with the artifacts of one of the visitor's jobs."""
        job = self.jobs.find(name, visitor)
        if any(d.run.state().state in UNFINISHED for d in drawings(job)):
            raise InputError("a picture of this job is being drawn: wait for it, or stop it")
        self.retention.require_room()
        followed = checked_picture(self.workspace.find(hint)) if hint else None
        drawing = new_drawing(job, wish, self.limits, followed)
        self._queue.add(drawing.run)
        return drawing

    def stop_drawing(self, name: str, visitor: Visitor) -> None:
        """Stop the picture of a job that is being drawn."""
        for drawing in drawings(self.jobs.find(name, visitor)):
            self._queue.stop(drawing.run)

    def wait(self, run: RunFolder, seconds: float | None = None) -> bool:
        """Wait until a run is over; False when it is not after so many seconds."""
        return self._queue.wait(run, seconds)
