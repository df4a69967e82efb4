"""Fetching addresses for visitors: within limits, in a process that alone knows the tokens."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from converter.downloads.web import TOKENS
from converter.errors import InputError
from converter.files import read_json
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.run_folder import Outcome, RunFolder, StepProgress
from sdconv.page.sources import Sources, is_address
from sdconv.page.workspace import Workspace

FETCH = "fetch.json"
"""The record of a run that fetches one address: {"address": ..., "variant": ...}."""

STEP = "fetch"


def run_fetch(
    workspace: Workspace, run: RunFolder, limits: Limits, progress: StepProgress
) -> Outcome:
    """Fetch the address of a run's record, or make sure that it is the newest."""
    record = read_json(run.path / FETCH, "what is to be fetched")
    address, variant = str(record["address"]), str(record["variant"])
    sources = Sources(workspace)
    with time_limit(limits.fetch_minutes * 60, address):
        sources.fetch(address, variant, limits.downloads, partial(progress, STEP))
    return Outcome("fetched", f"{address} was fetched")


def fetch_missing(sources: Sources, order: Order, limits: Limits, progress: StepProgress) -> None:
    """Fetch those sources of an order that are addresses and not here yet.

    Afterwards this process and what it starts do not know the tokens any more.
    """
    for source in order.sources():
        if is_address(source) and sources.fetched(source, order.variant) is None:
            with time_limit(limits.fetch_minutes * 60, source):
                sources.fetch(source, order.variant, limits.downloads, partial(progress, STEP))
    for variable in TOKENS.values():
        os.environ.pop(variable, None)


@contextmanager
def time_limit(seconds: float, address: str) -> Iterator[None]:
    """Raise InputError in this (main) thread when fetching takes longer, whatever it waits for."""

    def late(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise InputError(
            f"{address}: not here after {seconds / 60:g} minutes, which is the limit: try again to "
            "go on where it stopped, or upload the file"
        )

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
