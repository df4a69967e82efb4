"""The folder of one run (a conversion, a drawing, a download): what it says of itself on disk.

    state.json      written by the server: waiting, running, stopped, interrupted or ended, and when
    progress.json   written by the run: the step and stage that it is at
    notes.jsonl     written by the run: what it finished and what was worth noting, a line each
    outcome.json    written by the run, once, at its end
    log.txt         what the run and the vendors' programs that it starts print

Everything that is shown is read from here, so it survives a restart of server and browser alike.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import InputError
from converter.files import read_json, write_json
from converter.progress import Event

STATE, PROGRESS, NOTES, OUTCOME, LOG = (
    "state.json", "progress.json", "notes.jsonl", "outcome.json", "log.txt",
)  # fmt: skip

WAITING, RUNNING, STOPPED, INTERRUPTED, ENDED = (
    "waiting", "running", "stopped", "interrupted", "ended",
)  # fmt: skip
"""States: a run that was cancelled is stopped, one that the server's end cut off interrupted."""

UNFINISHED = (WAITING, RUNNING)

TICK = 0.25
"""Seconds between two writings of the progress, unless the stage changes."""

TAIL = 60_000
"""Bytes of the log that are shown."""

StepProgress = Callable[[str, Event], None]
"""Told the step ("export", "compile bm1684x") and the event inside it."""


@dataclass(frozen=True)
class State:
    """Where a run stands. Times are seconds since 1970; `process` is [id, time of its start]."""

    state: str
    submitted: float
    started: float | None = None
    ended: float | None = None
    process: tuple[int, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    `kind` is ``judged``, ``exported``, ``drawn`` or ``fetched``; or ``refused`` (bad input),
    ``failed`` (a toolchain) or ``fault`` (of sdconv itself). `verdict` is that of a judged one.
    `files` maps what was made, by its name for the visitor, to its size and BLAKE3.
    """

    kind: str
    sentence: str
    verdict: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether there is something to take away."""
        return self.kind in ("judged", "exported", "drawn", "fetched")


@dataclass(frozen=True)
class View:
    """What a run is at, and what it has done: (step, stage) -> seconds, and the notes."""

    step: str = ""
    stage: str = ""
    done: float = 0.0
    since: float | None = None
    finished: Mapping[tuple[str, str], float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    def state(self) -> State:
        """Read where it stands; raises InputError for a damaged record."""
        data = read_json(self.path / STATE, "the state of a run")
        try:
            process = data.get("process")
            pair = None if process is None else (int(process[0]), float(process[1]))
            times = {name: _time(data.get(name)) for name in ("started", "ended")}
            state = State(str(data["state"]), float(data["submitted"]), process=pair, **times)
        except (KeyError, TypeError, ValueError, IndexError) as e:
            raise InputError(f"{self.path / STATE}: damaged ({e})") from e
        if state.state not in (*UNFINISHED, STOPPED, INTERRUPTED, ENDED):
            raise InputError(f"{self.path / STATE}: damaged: {state.state!r} is no state")
        return state

    def save_state(self, state: State) -> None:
        """Write where it stands."""
        write_json(self.path / STATE, asdict(state))

    def outcome(self) -> Outcome | None:
        """What it came to; None while it has not ended. Raises InputError for a damaged record."""
        if not (self.path / OUTCOME).is_file():
            return None
        data = read_json(self.path / OUTCOME, "the outcome of a run")
        try:
            texts = {name: str(data[name]) for name in ("kind", "sentence", "verdict")}
            files = {str(name): dict(facts) for name, facts in data["files"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise InputError(f"{self.path / OUTCOME}: damaged ({e})") from e
        return Outcome(**texts, files=files)

    def save_outcome(self, outcome: Outcome) -> None:
        """Write what it came to."""
        write_json(self.path / OUTCOME, asdict(outcome))

    def forget_outcome(self) -> None:
        """Before it runs again."""
        for name in (OUTCOME, PROGRESS, NOTES):
            (self.path / name).unlink(missing_ok=True)

    def view(self) -> View:
        """What it is at. Where nothing can be read, nothing is known."""
        finished: dict[tuple[str, str], float] = {}
        notes: list[str] = []
        for line in _lines(self.path / NOTES):
            if line.get("seconds") is not None:
                finished[str(line["step"]), str(line["stage"])] = float(line["seconds"])
            if line.get("note"):
                notes.append(str(line["note"]))
        at: Mapping[str, Any] = {}
        with suppress(InputError):
            at = read_json(self.path / PROGRESS, "progress")
        return View(
            str(at.get("step", "")),
            str(at.get("stage", "")),
            float(at.get("done", 0)),
            _time(at.get("since")),
            finished,
            tuple(notes),
        )

    def log(self) -> str:
        """The end of what was printed."""
        path = self.path / LOG
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
        return text.partition("\n")[2] if len(text) >= TAIL else text


class Reporter:
    """Writes what a run is at. An instance is a `StepProgress`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at = ("", "")
        self._since = self._written = 0.0

    def __call__(self, step: str, event: Event) -> None:
        """Note an event inside a step."""
        now = time.time()
        if self._at != (step, event.stage):
            self._at, self._since, self._written = (step, event.stage), now, 0.0
        ended = event.done >= 1
        if event.note or ended:
            seconds = now - self._since if ended else None
            line = {"step": step, "stage": event.stage, "seconds": seconds, "note": event.note}
            with (self._folder / NOTES).open("a") as notes:
                notes.write(json.dumps(line) + "\n")
        if ended or now - self._written >= TICK:
            self._written = now
            at = {"step": step, "stage": event.stage, "done": event.done, "since": self._since}
            write_json(self._folder / PROGRESS, at)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file of JSON lines; a line that was cut off is left out."""
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            read = json.loads(line)
            if isinstance(read, dict) and {"step", "stage"} <= read.keys():
                yield read


def _time(value: object) -> float | None:
    return None if value is None else float(str(value))
