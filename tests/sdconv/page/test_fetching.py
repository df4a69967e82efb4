"""Fetching for visitors: progress, limits, refusals, and where tokens end up."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from converter.errors import InputError
from sdconv.page import fetching
from sdconv.page.desk import Desk
from sdconv.page.fetching import fetch_missing, run_fetch, time_limit
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.run_folder import Reporter, RunFolder
from sdconv.page.sources import Sources
from sdconv.page.workspace import Workspace

TOKEN = "hf_very_s3cret"  # noqa: S105  (nobody's)


@pytest.fixture
def run(workspace: Workspace) -> RunFolder:
    run = RunFolder(workspace.downloads / "runs" / "1")
    run.path.mkdir(parents=True)
    return run


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://localhost/x.safetensors", "not a public host"),
        ("https://127.0.0.1:8443/x", "not a public host"),
        ("https://[::1]/x", "not a public host"),
        ("https://169.254.169.254/latest/meta-data", "not a public host"),
        ("https://192.168.1.1/x", "not a public host"),
        ("http://example.com/x", "only https"),
        ("ftp://example.com/x", "only https"),
        ("https://user:pw@example.com/x", "with a secret in it"),
        ("https://example.com/x?token=abc", "with a secret in it"),
        ("just words", "is no address"),
    ],
)
def test_what_no_visitor_may_have_fetched(desk: Desk, address: str, reason: str) -> None:
    """The whole way: the process of the run refuses, and its words reach the visitor."""
    if address.startswith("https://") and "@" not in address and "?" not in address:
        run = RunFolder(desk.workspace.downloads / "runs" / "1")
        run.path.mkdir(parents=True)
        (run.path / "fetch.json").write_text(f'{{"address": "{address}", "variant": ""}}')
        with pytest.raises(InputError, match=reason):
            run_fetch(desk.workspace, run, desk.limits, Reporter(run.path))
        return
    with pytest.raises(InputError, match=reason):
        list(desk.fetch(address))


def test_a_refusal_of_the_runs_process_reaches_the_visitor(desk: Desk) -> None:
    with pytest.raises(InputError, match="localhost: not a public host"):
        list(desk.fetch("https://localhost/x.safetensors"))
    assert list((desk.workspace.downloads / "runs").iterdir()) == []


def test_fetching_ends_when_the_visitor_leaves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def patient(_: RunFolder) -> Any:
        return _Sleeper()

    monkeypatch.setattr(desk._fetches, "_start", patient)
    going = desk.fetch("hf:owner/name")
    next(going)
    (process,) = _Sleeper.started
    going.close()
    assert not psutil.pid_exists(process.pid)
    assert list((desk.workspace.downloads / "runs").iterdir()) == []


class _Sleeper:
    started: ClassVar[list["subprocess.Popen[bytes]"]] = []

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        self.started.append(self.process)
        self.identity = (self.process.pid, 0.0)

    def wait(self) -> int:
        return self.process.wait()

    def stop(self) -> None:
        self.process.kill()


def test_after_fetching_the_tokens_are_forgotten(
    workspace: Workspace, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run starts afterwards, a vendor's compiler, must not know them."""
    seen: list[str | None] = []

    def fetch(self: Sources, *_: object) -> Path:
        seen.append(os.environ.get("HF_TOKEN"))
        return self.workspace.root

    monkeypatch.setattr(Sources, "fetch", fetch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("CIVITAI_TOKEN", TOKEN)
    order = Order(checkpoint="hf:owner/name", loras=(("small.safetensors", "1"),))
    fetch_missing(Sources(workspace), order, Limits(), Reporter(run.path))
    assert seen == [TOKEN]
    assert TOKEN not in os.environ.values()
    for file in workspace.root.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


@pytest.fixture
def dripping() -> Iterator[tuple[str, int]]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[:2]


def test_a_server_that_says_nothing_is_given_up_in_time(dripping: tuple[str, int]) -> None:
    began = time.monotonic()
    with (
        socket.create_connection(dripping) as connection,
        pytest.raises(InputError, match=r"not here after 0.005 minutes"),
        time_limit(0.3, "https://host/x"),
    ):
        connection.recv(1)
    assert time.monotonic() - began < 5


def test_the_limit_is_over_with_what_it_limits() -> None:
    with time_limit(0.2, "x"):
        pass
    time.sleep(0.3)


def test_an_address_is_fetched_within_the_limits(
    workspace: Workspace, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(largest=123, fetch_minutes=1)
    asked: list[Any] = []

    def fetch(self: Sources, address: str, variant: str, policy: object, _: object) -> Path:
        asked.append((address, variant, policy))
        return self.workspace.root

    monkeypatch.setattr(Sources, "fetch", fetch)
    (run.path / "fetch.json").write_text('{"address": "hf:owner/name", "variant": "fp16"}')
    outcome = fetching.run_fetch(workspace, run, limits, Reporter(run.path))
    assert outcome.succeeded
    assert asked == [("hf:owner/name", "fp16", limits.downloads)]
    assert (limits.downloads.public_only, limits.downloads.largest) == (True, 123)
