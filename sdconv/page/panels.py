"""The page's panels as HTML: every value is escaped, because names of files are a visitor's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from converter.inspection import Inspection
from sdconv.page.conversion import Status
from sdconv.page.job import STEPS, Job, Outcome, deliverables
from targets.base import Artifact, Target, ToolchainError
from targets.registry import TARGETS, get_target
from validate.base import Result

STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class TargetState:
    """A target, and what it still needs on this machine; None when it is ready."""

    target: Target
    needs: str | None


def target_states() -> list[TargetState]:
    """Every target, asked now: a toolchain may have been installed since the page was opened."""
    states = []
    for target in map(get_target, TARGETS):
        try:
            target.check_ready()
            states.append(TargetState(target, None))
        except ToolchainError as e:
            states.append(TargetState(target, str(e)))
    return states


def status(shown: Status) -> str:
    """The verdict, progress or error in words; with a view, its steps and log."""
    return _render("status.html.j2", status=shown, steps=STEPS)


def inspection(found: Inspection) -> str:
    """What a file is."""
    return _render("inspection.html.j2", found=found)


def problem(sentence: str) -> str:
    """One readable line where another panel was expected."""
    return _render("problem.html.j2", sentence=sentence)


def unready(states: Sequence[TargetState]) -> str:
    """The targets that cannot be chosen yet, each with what it needs."""
    return _render("unready.html.j2", states=[s for s in states if s.needs is not None])


def commands(job: Job) -> str:
    """The command lines that do the same."""
    return _render("commands.html.j2", commands=job.commands())


def report(html: str) -> str:
    """The report in a frame of its own, which may run no script and reach nothing."""
    return _render("report.html.j2", html=html)


def files(job: Job, outcome: Outcome, packed: Path | None = None) -> str:
    """The artifacts with their verdicts, and every file with its download."""
    results = {_identity(result): result for result in outcome.report.results}
    everything = deliverables(job)
    artifacts = [
        (a, results.get(_identity(a)), everything[a.path]) for a in outcome.manifest.artifacts
    ]
    return _render("files.html.j2", job=job, artifacts=artifacts, files=everything, packed=packed)


def _identity(item: Artifact | Result) -> tuple[object, ...]:
    """What an artifact and its result have in common."""
    return item.component, item.target, item.size, item.batch, item.precision, item.path


def _address(path: Path) -> str:
    """Where the web server offers a file, relative to the page (it may sit behind a proxy)."""
    return f"gradio_api/file={quote(str(path))}"


def _bytes(path: Path) -> str:
    """The size of a file in the unit that reads best."""
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _render(template: str, **values: object) -> str:
    return _environment.get_template(template).render(values)


def _make_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, object] = {"address": _address, "bytes": _bytes}
    environment.filters |= filters
    return environment


_environment = _make_environment()
