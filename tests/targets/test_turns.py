"""Compilations beside each other: memory kept for jobs, programs that outgrow what they have."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import InputError
from targets import machine, turns
from targets.at_once import each
from targets.machine import Machine, memory_below, outgrown
from targets.processes import ChildStoppedError, run_logged
from targets.turns import memory_for

GB = 10**9
Have = Callable[[int], None]


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Have:
    """Sets the memory that the machine has; jobs look again ten times a second."""
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path))
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.1)

    def memory(count: int) -> None:
        monkeypatch.setattr(Machine, "here", classmethod(lambda cls: cls(count, 2)))

    memory(10 * GB)
    return memory


def no_wait(note: str) -> None:
    pytest.fail(note)


def test_two_jobs_that_fit_run_beside_each_other(have: Have) -> None:
    with memory_for(6 * GB, "for one", no_wait), memory_for(4 * GB, "for two", no_wait):
        pass


def test_a_job_waits_until_another_has_given_back_its_memory(have: Have) -> None:
    order: list[str] = []

    def second() -> None:
        with memory_for(5 * GB, "for two", order.append):
            order.append("two")

    with memory_for(6 * GB, "for one", no_wait):
        thread = threading.Thread(target=second)
        thread.start()
        while not order:
            time.sleep(0.01)
        time.sleep(0.3)
        order.append("one is done")
    thread.join()
    assert order == [
        "waits for memory: 5.0 GB are needed for two, and other compilations leave 4.0 GB",
        "one is done",
        "two",
    ]


def test_what_a_job_holds_already_is_not_counted_twice(
    have: Have, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory_for(6 * GB, "for one", no_wait):
        have(4 * GB)  # the job has taken its own
        monkeypatch.setattr(turns, "memory_below", lambda _: 6 * GB)
        with memory_for(4 * GB, "for two", no_wait):
            pass


def test_who_waits_for_nobody_is_refused(have: Have) -> None:
    with (
        pytest.raises(InputError, match=r"for one needs about 11\.0 GB of memory and 10\.0 GB"),
        memory_for(11 * GB, "for one", no_wait),
    ):
        pass


def test_jobs_of_another_process_count_while_it_lives(have: Have, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from targets.turns import memory_for\n"
        "with memory_for(6_000, 'here', print):\n"
        "    print('kept', flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    have(6_000)
    waited: list[str] = []
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"kept\n"

        def on_wait(note: str) -> None:
            waited.append(note)
            other.kill()  # nothing of it is left behind that others would wait for

        with memory_for(1_000, "for one", on_wait):
            assert waited
    assert not list((tmp_path / "cache" / "running").glob("*.job"))


def test_some_jobs_at_a_time_in_their_order() -> None:
    together = threading.Barrier(2, timeout=10)

    def job(number: int) -> int:
        together.wait()
        return number

    assert each([lambda n=n: job(n) for n in range(4)], 2) == [0, 1, 2, 3]  # type: ignore[misc]


@pytest.mark.parametrize("at_once", [1, 2])
def test_after_a_failure_nothing_new_begins(at_once: int) -> None:
    begun: list[int] = []

    def job(number: int) -> int:
        begun.append(number)
        if number == 0:
            raise InputError("broken")
        time.sleep(0.2)
        return number

    with pytest.raises(InputError, match="broken"):
        each([lambda n=n: job(n) for n in range(20)], at_once)  # type: ignore[misc]
    assert len(begun) <= at_once + 1


def test_an_interrupt_ends_the_programs_of_all_jobs(tmp_path: Path) -> None:
    ended: list[str] = []

    def program() -> None:
        try:
            run_logged(["/bin/sh", "-c", "echo; sleep 60"], tmp_path / "log", env=os.environ)
        except KeyboardInterrupt:
            ended.append("the program")
            raise

    def interrupt() -> None:
        while not (tmp_path / "log").exists() or "\n\n" not in (tmp_path / "log").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        each([interrupt, program], 2)
    assert time.monotonic() - start < 30
    assert ended == ["the program"]
    run_logged(["/bin/true"], tmp_path / "log", env=os.environ)


def test_a_program_with_a_problem_is_ended(tmp_path: Path) -> None:
    asked: list[int] = []

    def problem(process: int) -> str | None:
        asked.append(process)
        return "too large" if len(asked) == 2 else None

    with pytest.raises(ChildStoppedError, match="too large"):
        run_logged(["/bin/sleep", "60"], tmp_path / "log", env=os.environ, problem=problem)
    assert len(set(asked)) == 1


def test_only_what_outgrew_its_prediction_is_a_problem(have: Have) -> None:
    code = "held = bytearray(80_000_000); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert outgrown(program.pid, 1000) is None  # there is enough
        have(machine.MARGIN - 1)
        assert outgrown(program.pid, 2 * GB) is None
        said = outgrown(program.pid, 1000)
        assert said is not None
        assert said.startswith("it holds 0.1 GB where 0.0 GB were predicted, and 0.4 GB are left")
        assert memory_below(os.getpid()) > 80_000_000
        program.kill()
    assert memory_below(program.pid) == 0
