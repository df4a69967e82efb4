"""The queue: order, positions, stopping, and what a new server takes over."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdconv.page.run_folder import (
    ENDED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    WAITING,
    Outcome,
    RunFolder,
    State,
)
from sdconv.page.schedule import Schedule

FINE = Outcome("judged", "fine", "pass")


class Fake:
    """A run without a process, which ends when it is told."""

    identity = (0, 0.0)

    def __init__(self, run: RunFolder, outcome: Outcome | None = FINE, code: int = 0) -> None:
        self.run, self.outcome, self.code = run, outcome, code
        self.told = threading.Event()

    def wait(self) -> int:
        assert self.told.wait(30)
        if self.outcome is not None:
            self.run.save_outcome(self.outcome)
        return self.code

    def stop(self) -> None:
        self.outcome = None
        self.told.set()


class Fakes:
    """Runs by their folders."""

    def __init__(self) -> None:
        self.started: list[Fake] = []
        self.schedules: list[Schedule] = []

    def schedule(self, slots: int) -> Schedule:
        """A schedule that the test need not close."""
        self.schedules.append(Schedule(self, slots))
        return self.schedules[-1]

    def __call__(self, run: RunFolder) -> Any:
        self.started.append(Fake(run))
        return self.started[-1]

    def end(self, run: RunFolder, **changes: Any) -> None:
        (fake,) = [fake for fake in self.started if fake.run == run and not fake.told.is_set()]
        vars(fake).update(changes)
        fake.told.set()


@pytest.fixture
def fakes() -> Iterator[Fakes]:
    """Runs whose threads end with the test."""
    runs = Fakes()
    yield runs
    for schedule in runs.schedules:
        schedule.close()


def folders(tmp_path: Path, count: int) -> list[RunFolder]:
    found = [RunFolder(tmp_path / str(i)) for i in range(count)]
    for run in found:
        run.path.mkdir()
    return found


def states(runs: list[RunFolder]) -> list[str]:
    return [run.state().state for run in runs]


def test_they_run_in_the_order_in_which_they_came(fakes: Fakes, tmp_path: Path) -> None:
    schedule, runs = fakes.schedule(1), folders(tmp_path, 3)
    for run in runs:
        schedule.add(run)
    assert states(runs) == [RUNNING, WAITING, WAITING]
    assert [schedule.position(run) for run in runs] == [None, 1, 2]
    assert schedule.waiting == 2
    for run in runs:
        fakes.end(run)
        assert schedule.wait(run, 30)
    assert states(runs) == [ENDED] * 3
    assert [fake.run for fake in fakes.started] == runs
    started = [run.state().started for run in runs]
    assert started == sorted(started, key=lambda moment: moment or 0)


def test_as_many_go_on_at_once_as_may(fakes: Fakes, tmp_path: Path) -> None:
    schedule, runs = fakes.schedule(2), folders(tmp_path, 3)
    for run in runs:
        schedule.add(run)
    assert states(runs) == [RUNNING, RUNNING, WAITING]


def test_what_waits_is_stopped_without_having_run(fakes: Fakes, tmp_path: Path) -> None:
    schedule, runs = fakes.schedule(1), folders(tmp_path, 2)
    for run in runs:
        schedule.add(run)
    schedule.stop(runs[1])
    assert states(runs) == [RUNNING, STOPPED]
    fakes.end(runs[0])
    assert schedule.wait(runs[0], 30)
    assert len(fakes.started) == 1


def test_what_runs_is_stopped_and_the_next_begins(fakes: Fakes, tmp_path: Path) -> None:
    schedule, runs = fakes.schedule(1), folders(tmp_path, 2)
    for run in runs:
        schedule.add(run)
    schedule.stop(runs[0])
    assert states(runs) == [STOPPED, RUNNING]
    schedule.stop(runs[0])  # twice is once


@pytest.mark.parametrize(("code", "reason"), [(-9, "want of memory"), (3, "code 3")])
def test_a_run_that_dies_is_told_as_one(
    fakes: Fakes, tmp_path: Path, code: int, reason: str
) -> None:
    schedule, (run,) = fakes.schedule(1), folders(tmp_path, 1)
    schedule.add(run)
    fakes.end(run, outcome=None, code=code)
    assert schedule.wait(run, 30)
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.kind, outcome.succeeded) == ("fault", False)
    assert reason in outcome.sentence


def test_a_run_that_cannot_be_started_does_not_hold_up_the_others(tmp_path: Path) -> None:
    def full(_: RunFolder) -> Any:
        raise OSError("no more processes")

    schedule, runs = Schedule(full, 1), folders(tmp_path, 2)
    for run in runs:
        schedule.add(run)
    assert states(runs) == [ENDED, ENDED]
    assert all("no more processes" in (run.outcome() or FINE).sentence for run in runs)


def test_a_server_that_ends_interrupts_and_the_next_goes_on(fakes: Fakes, tmp_path: Path) -> None:
    schedule, runs = fakes.schedule(1), folders(tmp_path, 3)
    for run in runs:
        schedule.add(run)
    schedule.close()
    assert states(runs) == [INTERRUPTED, WAITING, WAITING]
    again = fakes.schedule(1)
    again.recover(runs)
    assert states(runs) == [INTERRUPTED, RUNNING, WAITING]
    assert again.position(runs[2]) == 1


def test_a_server_that_died_leaves_what_can_be_told_apart(fakes: Fakes, tmp_path: Path) -> None:
    cut_off, finished = folders(tmp_path, 2)
    for run in (cut_off, finished):
        run.save_state(State(RUNNING, 1.0, 2.0, process=(os.getpid(), 1.0)))  # another's id by now
    finished.save_outcome(FINE)
    fakes.schedule(1).recover([cut_off, finished])
    assert states([cut_off, finished]) == [INTERRUPTED, ENDED]
    assert fakes.started == []


def test_many_at_once_lose_nothing(fakes: Fakes, tmp_path: Path) -> None:
    schedule, runs = fakes.schedule(2), folders(tmp_path, 30)
    adders = [threading.Thread(target=schedule.add, args=(run,)) for run in runs]
    for adder in adders:
        adder.start()
    deadline = time.monotonic() + 30
    while len([f for f in fakes.started if f.told.is_set()]) < 30:
        assert time.monotonic() < deadline
        for fake in [*fakes.started]:
            fake.told.set()
        time.sleep(0.01)
    assert all(schedule.wait(run, 30) for run in runs)
    assert states(runs) == [ENDED] * 30
    assert len(fakes.started) == 30
