"""The process of one run: `python -m sdconv.page.worker ROOT FOLDER LIMITS`, started by the server.

What it is to do lies in the folder: the job that was ordered, a picture to draw, or an address to
fetch. It says where it is and what came of it in files there (`sdconv.page.run_folder`).
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from converter.errors import InputError
from sdconv.page.child import follow_parent
from sdconv.page.conversion import run_job
from sdconv.page.drawing import DRAWING, run_drawing
from sdconv.page.fetching import FETCH, run_fetch
from sdconv.page.jobs import JOB
from sdconv.page.limits import Limits
from sdconv.page.run_folder import Outcome, Reporter, RunFolder, StepProgress
from sdconv.page.telling import told
from sdconv.page.workspace import Workspace
from targets.base import ToolchainError
from targets.processes import watched

Work = Callable[[Workspace, RunFolder, Limits, StepProgress], Outcome]

WORK: dict[str, Work] = {JOB: run_job, DRAWING: run_drawing, FETCH: run_fetch}
"""By the record that lies in the folder."""

KINDS = {InputError: "refused", ToolchainError: "failed", OSError: "failed"}
"""Of outcomes, by the error; any other is a fault of ours."""

INTERRUPTED = 130


def run(workspace: Workspace, folder: RunFolder, limits: Limits) -> Outcome:
    """Do what the folder asks for; whatever goes wrong is the sentence of the outcome."""
    work = next(work for record, work in WORK.items() if (folder.path / record).is_file())
    try:
        with watched(_print):
            return work(workspace, folder, limits, Reporter(folder.path))
    except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
        kind = next((kind for errors, kind in KINDS.items() if isinstance(e, errors)), "fault")
        if kind == "fault":
            _print("".join(traceback.format_exception(e)))
        return Outcome(kind, told(e, workspace.root))


def _print(text: str) -> None:
    """Into the log, which is this process's output."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(root: str, folder: str, limits: str) -> int:
    """Run to the end; returns the exit code."""
    follow_parent()
    there = RunFolder(Path(folder))
    os.chdir(folder)
    try:
        with FileLock(there.path / ".lock"):  # an earlier run of the same may not have ended yet
            there.save_outcome(run(Workspace(Path(root)), there, Limits(**json.loads(limits))))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
