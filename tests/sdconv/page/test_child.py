"""A run's process: it ends when it is told, when its server dies, and with all that it started."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import sdconv.page.child
from sdconv.page.child import CODE, Child, end_leftover, end_tree
from sdconv.page.limits import Limits
from sdconv.page.run_folder import RunFolder
from sdconv.page.workspace import Workspace

STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
VENDOR = f"""
import json, os, signal, subprocess, sys, time
from sdconv.page.child import follow_parent
from targets.processes import own_group
from pathlib import Path
follow_parent()
with own_group([sys.executable, "-c", {STUBBORN!r}], env=os.environ) as child:
    Path("started.json").write_text(json.dumps([os.getpid(), child.pid]))
    Path("ready").touch()
    child.wait()
"""
"""A run that has a vendor's program compute, which does not care about Ctrl-C."""


def gone(*processes: int) -> bool:
    for _ in range(100):
        alive = [p for p in processes if psutil.pid_exists(p) and not _zombie(p)]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _zombie(process: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    return True


def started(folder: Path) -> list[int]:
    for _ in range(300):
        if (folder / "ready").is_file():
            ids: list[int] = json.loads((folder / "started.json").read_text())
            return ids
        time.sleep(0.1)
    raise AssertionError("it did not start")


def env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CODE)}


def test_stopping_ends_what_the_run_started(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", VENDOR], cwd=tmp_path, env=env(), stdin=subprocess.PIPE
    )
    with run:
        mine, vendors = started(tmp_path)
        end_tree(psutil.Process(run.pid))
        assert gone(mine, vendors)


def test_a_run_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = VENDOR.replace(
        "follow_parent()\n", "follow_parent()\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n", 1
    )
    run = subprocess.Popen(
        [sys.executable, "-c", hanging], cwd=tmp_path, env=env(), stdin=subprocess.PIPE
    )
    with run:
        mine, vendors = started(tmp_path)
        monkeypatch.setattr(sdconv.page.child, "GRACE", 0.5)
        end_tree(psutil.Process(run.pid))
        assert gone(mine, vendors)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_run_ends_with_its_server(tmp_path: Path, *, ignored: bool) -> None:
    """Killed, the server can tell nobody; started by a shell's `&`, it ignores Ctrl-C."""
    server = f"""
import signal, subprocess, sys, time
if {ignored}: signal.signal(signal.SIGINT, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", {VENDOR!r}], stdin=subprocess.PIPE)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", server], cwd=tmp_path, env=env()) as process:
        mine, vendors = started(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert gone(mine, vendors)


def test_what_a_dead_server_left_is_ended_if_it_is_that_very_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VENDOR], cwd=tmp_path, env=env(), stdin=subprocess.PIPE
    ) as run:
        mine, vendors = started(tmp_path)
        end_leftover((run.pid, 12.0))  # the id belongs to another process now
        end_leftover(None)
        assert psutil.pid_exists(vendors)
        end_leftover((run.pid, psutil.Process(run.pid).create_time()))
        assert gone(mine, vendors)


def test_what_a_killed_run_left_is_ended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the system kills it for want of memory."""
    monkeypatch.setattr(sdconv.page.child, "LOOK", 0.2)
    run = RunFolder(workspace.jobs / "1")
    run.path.mkdir()
    popen = subprocess.Popen

    def vendor(_: object, **options: Any) -> Any:
        return popen([sys.executable, "-c", VENDOR], cwd=run.path, **options)

    monkeypatch.setattr("sdconv.page.child.subprocess.Popen", vendor)
    child = Child(workspace, run, Limits())
    mine, vendors = started(run.path)
    threading.Timer(1.0, os.kill, (mine, signal.SIGKILL)).start()
    assert child.wait() == -signal.SIGKILL
    assert gone(mine, vendors)


def test_its_command_line_names_no_secret(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    seen: list[list[str]] = []

    class Recorded:
        def __init__(self, argv: list[str], **_: object) -> None:
            seen.append(argv)

    monkeypatch.setattr("sdconv.page.child.subprocess.Popen", Recorded)
    run = RunFolder(workspace.jobs / "1")
    run.path.mkdir()
    Child(workspace, run, Limits())
    assert "s3cret" not in str(seen)
    assert seen[0][1:3] == ["-m", "sdconv.page.worker"]
