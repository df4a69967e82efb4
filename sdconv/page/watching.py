"""The view of one job: where it is, its log, what it came to, and the try-it box."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converter.errors import InputError
from sdconv.page import panels
from sdconv.page.desk import Desk
from sdconv.page.drawing import Easel, Wish, drawings
from sdconv.page.jobs import Job
from sdconv.page.run_folder import ENDED, UNFINISHED
from sdconv.page.visitor import Visitor
from sdconv.page.words import Words


@dataclass(frozen=True)
class Panels:
    """What is to be seen of a job, and what can be done with it.

    `active`: it changes by itself, so it is to be looked at again soon. `result` is None while
    there is none.
    """

    kind: str
    status: str
    log: str = ""
    stops: bool = False
    resumes: bool = False
    removes: bool = False
    compiles: bool = False
    result: "Result | None" = None
    drawing: str = ""
    draws: bool = False
    active: bool = False


@dataclass(frozen=True)
class Result:
    """What a job came to.

    Of what is not `judged`, an export, there are files alone. `sizes` are those that each target
    can draw, `refusal` why none can. `follows`: there is a ControlNet.
    """

    judged: bool
    report: str
    files: str
    commands: str
    sizes: dict[str, Sequence[str]]
    refusal: str
    follows: bool


@dataclass(frozen=True)
class Watching:
    """What can be asked about a job. An id that is not the visitor's is told as unknown."""

    desk: Desk

    def show(self, name: str, visitor: Visitor) -> Panels:
        """Everything that is to be seen of a job now."""
        words = Words(visitor.language)
        if not name:
            return Panels("none", panels.hint(words, "job.none"))
        try:
            job = self.desk.job(name, visitor)
            return self._panels(job, words)
        except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
            return Panels("none", panels.problem(words, self.desk.told(e)))

    def _panels(self, job: Job, words: Words) -> Panels:
        kind = panels.kind_of(job)
        succeeded = job.outcome is not None and job.outcome.succeeded and job.state.state == ENDED
        drawn = drawings(job) if succeeded else []
        going = [d for d in drawn if d.run.state().state in UNFINISHED]
        position = self.desk.position(going[0].run) if going else None
        return Panels(
            kind=kind,
            status=panels.status(words, job, self.desk.position(job.run)),
            log=panels.log(words, job.run.log()),
            stops=job.unfinished,
            resumes=not job.unfinished and not succeeded,
            removes=not job.unfinished,
            compiles=kind == "exported",
            result=self._result(job, words) if succeeded else None,
            drawing=panels.drawing(words, job, drawn, position) if succeeded else "",
            draws=bool(going),
            active=job.unfinished or bool(going),
        )

    def _result(self, job: Job, words: Words) -> Result:
        sizes: dict[str, Sequence[str]] = {}
        refusal, follows = panels.hint(words, "result.none"), False
        judged = panels.kind_of(job) != "exported"
        if judged:
            try:
                easel = Easel.of(job)
                sizes, follows, refusal = dict(easel.sizes), easel.follows, ""
            except InputError as e:
                refusal = panels.problem(words, self.desk.told(e))
        keep = self.desk.limits.keep_days
        return Result(
            judged=judged,
            report=panels.report(words, job) if judged else refusal,
            files=panels.files(words, job, keep),
            commands=panels.commands(words, job),
            sizes=sizes,
            refusal=refusal,
            follows=follows,
        )

    def sizes(self, name: str, visitor: Visitor) -> Mapping[str, Sequence[str]]:
        """The sizes that each target of a job can draw; empty where none can."""
        try:
            return Easel.of(self.desk.job(name, visitor)).sizes
        except InputError:
            return {}

    def estimate(self, name: str, wish: Wish, visitor: Visitor) -> str:
        """How long a picture would take, or why it cannot be drawn."""
        words = Words(visitor.language)
        if not wish.target or not wish.size:
            return ""
        try:
            job = self.desk.job(name, visitor)
            asked = wish if wish.prompt.strip() else Wish("any", wish.target, wish.size)
            seconds = Easel.of(job).seconds(asked, job.folder)
            return panels.estimate(words, seconds, self.desk.limits.draw_minutes)
        except Exception as e:  # noqa: BLE001  (likewise)
            return panels.problem(words, self.desk.told(e))

    def history(self, opened: str, visitor: Visitor) -> str:
        """The visitor's jobs."""
        words = Words(visitor.language)
        jobs = self.desk.jobs.of(visitor)
        return panels.history(words, jobs, opened, keyed=visitor.owner is not None)
