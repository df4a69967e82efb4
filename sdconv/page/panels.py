"""The page's panels as HTML: every value is escaped, because names of files are a visitor's."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from converter.architecture import CONTROLNET
from converter.bundle import Bundle
from converter.errors import InputError
from converter.files import read_json
from converter.inspection import Inspection
from sdconv.page.addons import EMBEDDING, LORA, Addon, lcm_advice
from sdconv.page.choices import PrecisionChoice, TargetState
from sdconv.page.conversion import BUNDLE_OF_JOB
from sdconv.page.deliverables import REPORT, REPORT_JSON, changed, files_of
from sdconv.page.drawing import Drawing, command
from sdconv.page.forecast import Forecast
from sdconv.page.jobs import Job
from sdconv.page.order import EXPORT, Order
from sdconv.page.progress import Progress, progress
from sdconv.page.requests import ARTIFACTS, BUNDLE, shown_requests
from sdconv.page.run_folder import ENDED, RUNNING, UNFINISHED, WAITING, Outcome, View
from sdconv.page.sources import KEPT
from sdconv.page.web import file_address
from sdconv.page.words import Words
from targets.base import Artifact
from targets.manifest import Manifest

STYLE = Path(__file__).with_name("page.css")

STEPS = ("fetch", "bundle", "export", "torchscript", "calibrate", "compile", "validate")
"""The steps of a conversion in their order, of which each has some."""

IDENTITY = ("component", "target", "size", "precision")

MOST_LISTED = 100
"""Jobs of the history that are shown."""


def head(words: Words, user: str | None) -> str:
    """What this is, and who is logged in."""
    return _render("head.html.j2", words, user=user)


def problem(words: Words, sentence: str) -> str:
    """One readable line where another panel was expected."""
    return _render("problem.html.j2", words, sentence=sentence)


def hint(words: Words, key: str) -> str:
    """What is to be done first, where there is nothing to show yet."""
    return _render("hint.html.j2", words, sentence=words(key))


def found(words: Words, name: str, inspection: Inspection) -> str:
    """What a model is."""
    return _render("found.html.j2", words, name=name, found=inspection)


def bundle_found(words: Words, name: str, bundle: Bundle) -> str:
    """What an export is."""
    return _render("bundle.html.j2", words, name=name, bundle=bundle)


def fetching(words: Words, address: str, view: View) -> str:
    """An address on its way."""
    return _render("fetching.html.j2", words, address=address, view=view)


def addons(words: Words, added: Sequence[Addon], family: str) -> str:
    """What was added to a checkpoint, each with what can be said about it."""
    return _render(
        "addons.html.j2",
        words,
        addons=added,
        family=family,
        lcm=lcm_advice(added),
        LORA=LORA,
        CONTROLNET=CONTROLNET,
        EMBEDDING=EMBEDDING,
    )


def unready(words: Words, states: Sequence[TargetState]) -> str:
    """The targets that cannot be chosen yet, each with what it needs."""
    needy = [state for state in states if state.needs is not None]
    return _render("unready.html.j2", words, states=needy) if needy else ""


def precisions(
    words: Words, choices: Sequence[PrecisionChoice], chosen: Mapping[str, Mapping[str, str]]
) -> str:
    """A table of targets and components, each with its choice."""
    targets = list(dict.fromkeys(choice.target for choice in choices))
    components = list(dict.fromkeys(choice.component for choice in choices))
    cells = {(choice.target, choice.component): choice for choice in choices}
    return _render(
        "precisions.html.j2",
        words,
        targets=targets,
        components=components,
        cells=cells,
        chosen=chosen,
    )


def plan(words: Words, forecast: Forecast) -> str:
    """What an order needs, whether this machine has it, and every step."""
    return _render("plan.html.j2", words, forecast=forecast, need=forecast.need,
                   here=forecast.plans[0].here, adapters=_adapter_lines(forecast))  # fmt: skip


def _adapter_lines(forecast: Forecast) -> list[str]:
    """How each LoRA fits, by its name: where it lies is nobody's business."""
    adapters = forecast.plans[0].request.export.adapters
    lines = zip(adapters, forecast.adapters, strict=True)
    return [line.replace(str(adapter.path), adapter.path.name) for adapter, line in lines]


@dataclass(frozen=True)
class StepState:
    """One step of a conversion in its list: done, here, later, or where it ended badly."""

    name: str
    target: str
    kind: str


def status(words: Words, job: Job, position: int | None) -> str:
    """The verdict, progress or error of a job, with what was converted."""
    view, state, outcome = job.run.view(), job.state, job.outcome
    began = state.started or state.submitted
    elapsed = (state.ended or time.time()) - began
    whole: Progress | None = None
    if state.state == RUNNING:
        whole = progress(job.planned(), view, elapsed)
    return _render(
        "status.html.j2",
        words,
        job=job,
        kind=kind_of(job),
        title=title_of(job),
        order=job.settled,
        view=view,
        outcome=outcome,
        position=position,
        whole=whole,
        elapsed=elapsed if state.started else None,
        since=time.time() - state.submitted,
        steps=_steps(job, view),
        changed=changed(job) if outcome is not None and outcome.succeeded else (),
        exported=BUNDLE_OF_JOB,
    )


def kind_of(job: Job) -> str:
    """One word for how a job stands: a state, a verdict, or how it failed."""
    if job.state.state != ENDED or job.outcome is None:
        return job.state.state
    return job.outcome.verdict or job.outcome.kind


def title_of(job: Job) -> str:
    """What is converted, by the names of its files."""
    order = job.order
    if order.bundle:
        return _exported_from(job) or short_name(order.bundle)
    return short_name(order.checkpoint or next(iter(order.parts.values()), ""))


def _exported_from(job: Job) -> str:
    """What the bundle that a job goes on with was exported from; empty where it is not there."""
    with suppress(InputError, KeyError, IndexError):
        return Path(str(Bundle.read(job.folder / BUNDLE).sources[0]["path"])).name
    return ""


def age(words: Words, job: Job) -> str:
    """When a job was ordered."""
    return words.ago(time.time() - job.state.submitted)


def short_name(source: str) -> str:
    """A source without the folders before it."""
    if source.startswith(("hf:", BUNDLE_OF_JOB)):
        return source
    plain = source.removeprefix(KEPT).partition("#")[0].rstrip("/")
    return plain.rpartition("/")[2] or source


def _steps(job: Job, view: View) -> list[StepState]:
    """The steps that a job has, in order, and how far it is."""
    order = job.order
    wanted = [("fetch", "")] if view.step == "fetch" else []
    wanted.append(("bundle" if order.bundle else "export", ""))
    wanted += [("torchscript", "")] if order.format != "onnx" else []
    if order.steps != EXPORT:
        wanted += [("calibrate", "")] if _reached(view, "calibrate") else []
        wanted += [("compile", target) for target in order.targets] + [("validate", "")]
    names = [f"{name} {target}".strip() for name, target in wanted]
    here = names.index(view.step) if view.step in names else -1
    succeeded = job.outcome is not None and job.outcome.succeeded and job.state.state == ENDED
    kinds = ["done" if succeeded or place < here else "later" for place in range(len(names))]
    if here >= 0 and not succeeded and job.state.state != WAITING:
        kinds[here] = "here" if job.state.state in UNFINISHED else "bad"
    return [StepState(n, t, k) for (n, t), k in zip(wanted, kinds, strict=True)]


def _reached(view: View, step: str) -> bool:
    return view.step == step or any(done == step for done, _ in view.finished)


def log(words: Words, text: str) -> str:
    """What was printed."""
    return _render("log.html.j2", words, text=text)


def files(words: Words, job: Job, keep_days: float) -> str:
    """The artifacts with their verdicts, and every file with its download."""
    offered = files_of(job)
    rows: list[tuple[Artifact, str]] = []
    if job.outcome is not None and job.outcome.kind == "judged":
        verdicts = _verdicts(job)
        for artifact in Manifest.load(job.folder / ARTIFACTS).artifacts:
            size = None if artifact.size is None else str(artifact.size)
            same = (artifact.component, artifact.target, size, artifact.precision)
            rows.append((artifact, verdicts.get(same, "")))
    return _render(
        "files.html.j2",
        words,
        job=job,
        rows=rows,
        files={name: path.stat().st_size for name, path in offered.items()},
        days=f"{keep_days:g}",
    )


def _verdicts(job: Job) -> dict[tuple[object, ...], str]:
    """By what an artifact and its result have in common."""
    report = read_json(job.folder / ARTIFACTS / REPORT_JSON, "a report")
    return {
        tuple(result.get(name) for name in IDENTITY): str(result.get("verdict", ""))
        for result in report.get("results", ())
    }


def commands(words: Words, job: Job) -> str:
    """The command lines that do the same."""
    return _render("commands.html.j2", words, commands=shown_requests(job.settled).commands())


def report(words: Words, job: Job) -> str:
    """The report in a frame of its own."""
    there = REPORT in files_of(job)
    return _render("report.html.j2", words, job=job) if there else ""


def drawing(words: Words, job: Job, drawn: Sequence[Drawing], position: int | None) -> str:
    """The pictures of the try-it box: the one being drawn, and those that were."""
    shown = [
        Shown(d, d.run.state().state, d.run.outcome(), d.run.view(), command(d.wish)) for d in drawn
    ]
    return _render("drawing.html.j2", words, job=job, shown=shown, position=position)


@dataclass(frozen=True)
class Shown:
    """A drawing with what its folder says of it."""

    drawing: Drawing
    state: str
    outcome: Outcome | None
    view: View
    command: str

    @property
    def number(self) -> str:
        """Its name within the job."""
        return self.drawing.run.path.name


def estimate(words: Words, seconds: float | None, limit_minutes: float) -> str:
    """How long a picture will take, and whether that is too long."""
    return _render("estimate.html.j2", words, seconds=seconds, limit=limit_minutes * 60)


def history(words: Words, jobs: Sequence[Job], opened: str, *, keyed: bool) -> str:
    """A visitor's jobs; without a key of his browser, why there are none."""
    now = time.time()
    entries = [
        (job, kind_of(job), title_of(job), added_names(job.order), now - job.state.submitted)
        for job in jobs[:MOST_LISTED]
    ]
    return _render("history.html.j2", words, entries=entries, opened=opened, keyed=keyed)


def added_names(order: Order) -> list[str]:
    """The names of everything that was added to a checkpoint."""
    named = [source for source, _ in (*order.loras, *order.embeddings)]
    named += [*order.controlnets, *(order.parts.values() if order.checkpoint else ())]
    return [short_name(source) for source in named]


def _bytes(size: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _render(template: str, words: Words, **values: object) -> str:
    return _environment.get_template(template).render(t=words, **values)


def _make_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, object] = {"bytes": _bytes, "short": short_name}
    environment.filters |= filters
    environment.globals["file_address"] = file_address
    return environment


_environment = _make_environment()
