"""Every conversion that was ordered, on disk: `jobs/<id>`, one folder each, read anew when asked.

job.json    what was ordered, by whom, and a hash over both
plan.json   the profile that fits, and the stages with the seconds that they are expected to take
inputs/     the uploads that it was made from
bundle/  artifacts/  drawings/
"""

import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from converter.cache import content_key
from converter.errors import InputError
from converter.files import read_json, write_json
from sdconv.page.forecast import PlannedStep
from sdconv.page.order import Order
from sdconv.page.requests import Locate
from sdconv.page.run_folder import UNFINISHED, Outcome, RunFolder, State
from sdconv.page.sources import Sources, keep_uploads
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace

ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{32}")
JOB, PLAN = "job.json", "plan.json"
REMOVED = ".removed-"
"""Begins the name of a job's folder that is being removed."""


@dataclass(frozen=True)
class Job:
    """One conversion as it was ordered. State and outcome are read from its folder."""

    id: str
    run: RunFolder
    order: Order
    owner: str | None

    @property
    def folder(self) -> Path:
        """Everything of it lies here."""
        return self.run.path

    @cached_property
    def state(self) -> State:
        """Where it stood when this was first asked."""
        return self.run.state()

    @cached_property
    def outcome(self) -> Outcome | None:
        """What it came to, when this was first asked."""
        return self.run.outcome()

    @property
    def unfinished(self) -> bool:
        """Whether it waits or runs."""
        return self.state.state in UNFINISHED

    def locate(self, sources: Sources) -> Locate:
        """Where the job's sources are."""
        mine = replace(sources, job=self.folder)
        return lambda source: mine.local(source, self.order.variant)

    def planned(self) -> list[PlannedStep]:
        """The stages that were expected; empty where nothing was foreseen."""
        with suppress(InputError, KeyError, TypeError):
            return [PlannedStep(**step) for step in self._plan()["steps"]]
        return []

    @property
    def settled(self) -> Order:
        """The order, with the profile that fits where the visitor left the choice."""
        with suppress(InputError, KeyError):
            return replace(self.order, profile=self.order.profile or str(self._plan()["profile"]))
        return self.order

    def _plan(self) -> dict[str, Any]:
        return read_json(self.folder / PLAN, "a plan")

    def save_plan(self, profile: str, steps: Sequence[PlannedStep]) -> None:
        """Keep what is expected."""
        record = {"profile": profile, "steps": [step.to_json() for step in steps]}
        write_json(self.folder / PLAN, record)


@dataclass(frozen=True)
class Jobs:
    """All jobs of a workspace."""

    workspace: Workspace

    def create(self, order: Order, visitor: Visitor) -> Job:
        """Make a folder that no other job has, with a name that cannot be guessed."""
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        name = f"{started}-{secrets.token_hex(16)}"
        folder = self.workspace.jobs / name
        folder.mkdir()
        try:
            kept = keep_uploads(order, self.workspace, folder)
            job = Job(name, RunFolder(folder), kept, visitor.owner)
            write_json(folder / JOB, _record(job))
        except BaseException:
            shutil.rmtree(folder)
            raise
        return job

    def get(self, name: str) -> Job | None:
        """The job of that id, whosever it is; None if there is none."""
        return self._read(name) if ID.fullmatch(name) else None

    def find(self, name: str, visitor: Visitor) -> Job:
        """The job of that id; InputError if there is none or it is another visitor's: alike."""
        job = self.get(name)
        if job is None or not visitor.may_see(job.owner):
            raise InputError(f"no job {name[:60]!r}: open one of the history")
        return job

    def of(self, visitor: Visitor) -> list[Job]:
        """A visitor's own jobs, the newest first."""
        if visitor.owner is None:
            return []
        return [job for job in self.every() if job.owner == visitor.owner]

    def every(self) -> Iterator[Job]:
        """All jobs whose records are whole, the newest first."""
        for folder in sorted(self.workspace.jobs.iterdir(), reverse=True):
            if (job := self.get(folder.name)) is not None:
                yield job

    def _read(self, name: str) -> Job | None:
        """A job whose records are there, whole, and what they were written as; None otherwise."""
        folder = self.workspace.jobs / name
        if folder.is_symlink() or not folder.is_dir():
            return None
        try:
            data = read_json(folder / JOB, "the record of a job")
            owner = None if data.get("owner") is None else str(data["owner"])
            job = Job(name, RunFolder(folder), Order.from_json(data.get("order")), owner)
            whole = data == _record(job) and job.state is not None  # read, and so checked
            _ = job.outcome
        except InputError:
            return None
        return job if whole else None

    def remove(self, job: Job) -> None:
        """Remove a job that neither waits nor runs."""
        if job.run.state().state in UNFINISHED:
            raise InputError("it is not finished: stop it first")
        if job.folder.parent != self.workspace.jobs:
            raise ValueError(f"{job.folder} is no job of {self.workspace.root}")
        gone = job.folder.with_name(REMOVED + job.id)
        job.folder.rename(gone)  # from here on nobody finds it, however long the rest takes
        shutil.rmtree(gone, ignore_errors=True)


def _record(job: Job) -> dict[str, Any]:
    ordered = {"id": job.id, "owner": job.owner, "order": job.order.to_json()}
    plain: dict[str, Any] = {"schema": 1, **_plain(ordered)}
    return {**plain, "key": content_key(ordered)}


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists there."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [*map(_plain, value)] if isinstance(value, list | tuple) else value


def age_of(job: Job) -> float:
    """Seconds since anything happened to it."""
    state = job.state
    return time.time() - max(filter(None, (state.submitted, state.started, state.ended)))
