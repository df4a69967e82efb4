"""The page for programs: what `gradio_client` calls, as plain JSON values.

Answers name no path of this machine. Files are given by addresses below the page's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.inspection import Inspection
from sdconv.page import panels
from sdconv.page.deliverables import files_of
from sdconv.page.desk import Desk
from sdconv.page.jobs import Job
from sdconv.page.order import Order
from sdconv.page.progress import progress
from sdconv.page.requests import shown_requests
from sdconv.page.run_folder import RUNNING
from sdconv.page.sources import is_address
from sdconv.page.visitor import Visitor
from sdconv.page.web import file_address

MOST_NOTES = 50


@dataclass(frozen=True)
class Api:
    """The endpoints. Each raises InputError or ToolchainError with one sentence."""

    desk: Desk

    def inspect(self, source: str, variant: str = "") -> dict[str, Any]:
        """What a model is, as `sdconv inspect --json` says it; an address is fetched first."""
        if is_address(source) and self.desk.sources.fetched(source, variant) is None:
            for _ in self.desk.fetch(source, variant):
                pass
        return _named(self.desk.inspect(source, variant), source)

    def convert(self, order: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        """Queue an order; returns its id and its place in the queue."""
        job = self.desk.submit(Order.from_json(order), visitor)
        return {"job": job.id, "position": self.desk.position(job.run) or 0}

    def status(self, name: str, visitor: Visitor) -> dict[str, Any]:
        """Where a job stands."""
        job = self.desk.job(name, visitor)
        view, state = job.run.view(), job.state
        whole = None
        if state.state == RUNNING and state.started is not None:
            elapsed = max(0.0, (view.since or state.started) - state.started)
            whole = progress(job.planned(), view, elapsed)
        return {
            "job": job.id,
            "state": panels.kind_of(job),
            "finished": not job.unfinished,
            "position": self.desk.position(job.run) or 0,
            "step": view.step,
            "stage": view.stage,
            "done": round(whole.done if whole else view.done, 4),
            "notes": list(view.notes[-MOST_NOTES:]),
            "sentence": "" if job.outcome is None else job.outcome.sentence,
        }

    def result(self, name: str, visitor: Visitor) -> dict[str, Any]:
        """What a finished job came to: verdict, files with their addresses, commands."""
        job = self.desk.job(name, visitor)
        outcome = job.outcome
        return {
            **self.status(name, visitor),
            "verdict": "" if outcome is None else outcome.verdict,
            "files": self._files(job),
            "archive": f"jobs/{job.id}/all.zip",
            "report": f"jobs/{job.id}/report",
            "commands": shown_requests(job.settled).commands(),
        }

    def _files(self, job: Job) -> list[dict[str, Any]]:
        made = {} if job.outcome is None else job.outcome.files
        return [
            {"name": name, "address": file_address(job, name), **made[name]}
            for name in files_of(job)
        ]

    def cancel(self, name: str, visitor: Visitor) -> dict[str, Any]:
        """Stop a job; nothing of it runs any more when this returns."""
        self.desk.stop(name, visitor)
        return self.status(name, visitor)


def _named(found: Inspection, source: str) -> dict[str, Any]:
    """Without the path; and no key that Gradio's client takes for a file's."""
    record = found.to_json()
    del record["path"]
    return {"name": panels.short_name(source), **record}
