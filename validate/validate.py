"""Validate a folder of artifacts: plan, run, judge, report. For the verb, the page and compile."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from converter.bundle import Bundle
from converter.components import text_encoders
from converter.files import replacing, write_json
from converter.progress import Event, Progress, silent
from runtime.sampling import PictureRequest
from runtime.staging import OpenReference, check_draws
from targets.base import Artifact, Conformance, Target
from targets.manifest import Manifest
from targets.registry import get_target
from validate.base import EMULATOR_BUDGET, TOGETHER, Judge, Level, Report, Result, Verdict
from validate.baseline import compare_with
from validate.exported.check import check_exports
from validate.judge import judges
from validate.latency import predicted_latency
from validate.layers.level import layer_results, with_blame
from validate.overrides import Override
from validate.picture import Drawn, Gallery, draw_pictures
from validate.plan import Group, load_artifacts, plan
from validate.recognition import load_recogniser
from validate.references import References, open_torch_reference
from validate.rescue.repair import Repair
from validate.rescue.rescue import Workshop, rescue
from validate.run import Bench, Outcome, run
from validate.scenes import stand_ins
from validate.sittings import sittings
from validate.studio import Studio
from validate.verdicts import judge_saved
from validate.versions import versions_here


@dataclass(frozen=True)
class ValidateRequest:
    """What to validate. Paths left out: `report.html` and `report.json` beside the artifacts.

    `bundle` replaces the path in the manifest, for a bundle that was moved. `emulator_budget` is
    in seconds per artifact and per picture. With `judge_only` saved outputs are judged and nothing
    is run. `picture` is drawn with the artifacts of every target at every size, and once more with
    each of `prompts` in the place of its own.

    `levels` None: the export and every component, with a picture also what draws it, and the inside
    of what failed. `recogniser` is the file of one, `overrides` a recipe's own thresholds. With
    `attribute` it is always found out which component costs how much of a picture, else for
    those that fail.
    """

    artifacts: Path
    report: Path | None = None
    json: Path | None = None
    bundle: Path | None = None
    emulator_budget: float = EMULATOR_BUDGET
    judge_only: bool = False
    picture: PictureRequest | None = None
    prompts: tuple[str, ...] = ()
    levels: tuple[Level, ...] | None = None
    recogniser: Path | None = None
    attribute: bool = False
    rescue: bool = False
    """Whether components that fail are compiled again, with as little as possible of them kept in a
    higher precision, where the target can."""
    overrides: tuple[Override, ...] = ()
    baseline: Path | None = None
    """An earlier JSON report, to compare with."""
    lowered: bool = False
    """Whether what an emulator would take minutes for is run in the compiler's interpreter."""
    references: Path | None = None
    """Where inputs and the reference's outputs are kept, for folders that share them; None: beside
    the artifacts."""
    recipe: str = ""
    """The recipe that does all this, as YAML, for the report."""

    @property
    def report_path(self) -> Path:
        """Where the HTML goes."""
        return self.report or self.artifacts / "report.html"

    @property
    def json_path(self) -> Path:
        """Where the JSON goes."""
        return self.json or self.artifacts / "report.json"

    @property
    def chosen_levels(self) -> tuple[Level, ...]:
        """Those asked for, else those that are usual."""
        drawn = () if self.picture is None else TOGETHER
        return self.levels or (Level.EXPORT, Level.COMPONENT, *drawn)

    @property
    def pictures(self) -> list[PictureRequest]:
        """Everything that is drawn, where a level needs it."""
        if self.picture is None or not set(self.chosen_levels) & set(TOGETHER):
            return []
        more = [replace(self.picture, prompt=prompt) for prompt in self.prompts]
        return [self.picture, *more]

    def command(self) -> list[str]:
        """The command line that makes the same request, but for overrides, which recipes have."""
        words = ["sdconv", "validate", str(self.artifacts.absolute())]
        if self.bundle is not None:
            words += ["--bundle", str(self.bundle.absolute())]
        if self.levels is not None:
            words += ["--level", ",".join(self.levels)]
        if self.emulator_budget != EMULATOR_BUDGET:
            words += ["--emulator-budget", f"{self.emulator_budget / 60:g}"]
        if self.picture is not None:
            words += self.picture.command()
        for prompt in self.prompts:
            words += ["--prompt", prompt]
        if self.recogniser is not None:
            words += ["--recogniser", str(self.recogniser.absolute())]
        words += ["--attribute"] if self.attribute else []
        return [*words, "--rescue"] if self.rescue else words


CheckExports = Callable[..., list[Result]]
"""`validate.exported.check.check_exports`, or a stand-in."""


@dataclass(frozen=True)
class _Tools:
    """What a validation is done with."""

    progress: Progress
    open_target: Callable[[str], Target]
    open_reference: OpenReference
    check_exports: CheckExports


def validate(
    request: ValidateRequest,
    progress: Progress = silent,
    *,
    open_target: Callable[[str], Target] = get_target,
    open_reference: OpenReference = open_torch_reference,
    check_exports: CheckExports = check_exports,
) -> Report:
    """Compare every artifact with the fp32 reference and write both reports.

    Raises InputError when artifacts, bundle or torch are not there, or do not belong together.
    """
    tools = _Tools(progress, open_target, open_reference, check_exports)
    report = _look(request, tools)
    if request.rescue and not request.judge_only:
        repairs = _rescue(request, report, tools)
        if any(repair.table for repair in repairs):
            report = _look(request, tools)
        report = replace(report, repairs=repairs)
    if request.baseline is not None:
        report = replace(report, comparison=compare_with(report, request.baseline))
    write_reports(report, request.report_path, request.json_path)
    progress(Event("judge", 1, f"{report.verdict}: {report.sentence}"))
    return report


def _look(request: ValidateRequest, tools: _Tools) -> Report:
    """Run what was not run before, and judge what is saved."""
    manifest = load_artifacts(request.artifacts)
    bundle = manifest.load_bundle(request.bundle)
    groups = plan(manifest, bundle, request.references)
    for picture in request.pictures:
        check_draws(bundle, picture.controlnets)
    gallery = _gallery(request)
    bench = None
    if not request.judge_only:
        bench = Bench(
            manifest.folder,
            tools.open_target,
            request.emulator_budget,
            tools.progress,
            bundle,
            request.lowered,
        )
    with References(bundle, tools.open_reference) as references:
        results = list(_one_by_one(request, groups, references, bench, gallery.judges))
        if Level.EXPORT in request.chosen_levels:
            components = [*dict.fromkeys(group.component for group in groups)]
            results += tools.check_exports(
                bundle,
                components,
                references,
                gallery.judges,
                tools.progress,
                run=bench is not None,
            )
    studio = None if bench is None else Studio(manifest, bundle, bench, tools.open_reference)
    drawn = _together(request, manifest, bundle, gallery, studio)
    tools.progress(Event("judge", 0))
    results = _with_stand_ins([*results, *drawn.results], bundle)
    report = _report(request, manifest, bundle, results)
    files = conformance(manifest, bundle, tools.open_target)
    return replace(
        report,
        conformance=files,
        attributions=drawn.attributions,
        unproven=_unproven(manifest, tools.open_target),
    )


def _rescue(request: ValidateRequest, report: Report, tools: _Tools) -> list[Repair]:
    """Compile what fails again, where its target can keep single operations."""
    manifest = load_artifacts(request.artifacts)
    workshop = Workshop(
        manifest,
        manifest.load_bundle(request.bundle),
        tools.open_target,
        judges(request.overrides)[Level.COMPONENT],
        request.emulator_budget,
        tools.progress,
    )
    return rescue(report.results, workshop)


def _gallery(request: ValidateRequest) -> Gallery:
    recogniser = None if request.recogniser is None else load_recogniser(request.recogniser)
    return Gallery(judges(request.overrides), recogniser, request.attribute)


def _one_by_one(
    request: ValidateRequest,
    groups: Sequence[Group],
    references: References,
    bench: Bench | None,
    judges: Mapping[Level, Judge],
) -> Iterator[Result]:
    """What is found out of every artifact alone: its outputs, and what it holds inside."""
    levels = request.chosen_levels
    outcomes: Mapping[Path, Outcome] = {}
    results: list[Result] = []
    if Level.COMPONENT in levels:
        if bench is not None:
            outcomes = run(groups, references, bench)
        results = judge_saved(groups, outcomes, judges[Level.COMPONENT])
    failed: list[Result] | None = None
    if Level.LAYER not in levels:
        # What fails is looked into, unless only some levels are asked for.
        failed = [r for r in results if r.verdict is Verdict.FAIL and request.levels is None]
    inside = layer_results(groups, references, bench, judges[Level.LAYER], failed)
    yield from with_blame(results, inside)
    yield from inside


def _together(
    request: ValidateRequest,
    manifest: Manifest,
    bundle: Bundle,
    gallery: Gallery,
    studio: Studio | None,
) -> Drawn:
    """What is found out of all artifacts of a target together."""
    wanted = [s for picture in request.pictures for s in sittings(manifest, bundle, picture)]
    return draw_pictures(wanted, gallery, request.chosen_levels, studio)


def conformance(
    manifest: Manifest, bundle: Bundle, open_target: Callable[[str], Target]
) -> list[Conformance]:
    """Whether the files of every target load as their consumer loads them."""
    by_target: dict[str, list[Artifact]] = {}
    for artifact in manifest.artifacts:
        by_target.setdefault(artifact.target, []).append(artifact)
    return [
        checked
        for name, artifacts in by_target.items()
        for checked in open_target(name).conformance(bundle, artifacts, manifest.folder)
    ]


def _unproven(manifest: Manifest, open_target: Callable[[str], Target]) -> dict[str, str]:
    names = dict.fromkeys(artifact.target for artifact in manifest.artifacts)
    said = {name: open_target(name).unproven for name in names}
    return {name: sentence for name, sentence in said.items() if sentence is not None}


def write_reports(report: Report, html_path: Path, json_path: Path) -> None:
    """Write both files, each whole or not at all."""
    from validate.report.html import render_html
    from validate.report.json_report import report_to_json

    write_json(json_path, report_to_json(report))
    with replacing(html_path) as work:
        work.write_text(render_html(report))


def _with_stand_ins(results: list[Result], bundle: Bundle) -> list[Result]:
    encoders = text_encoders(bundle.family)
    notes = {r.component: stand_ins(r.component, bundle.components, encoders) for r in results}
    return [
        replace(result, note="; ".join(filter(None, (result.note, notes[result.component]))))
        for result in results
    ]


def _report(
    request: ValidateRequest, manifest: Manifest, bundle: Bundle, results: list[Result]
) -> Report:
    return Report(
        artifacts=manifest.folder.absolute(),
        bundle=bundle.folder.absolute(),
        results=results,
        sources=bundle.sources,
        adapters=bundle.adapters,
        versions={
            "export": bundle.versions,
            "compile": manifest.versions,
            "validate": versions_here(),
        },
        commands=_commands(request, manifest, bundle),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        latency=predicted_latency(manifest, bundle, request.picture),
        recipe=request.recipe,
        placements={
            f"{a.label} on {a.target}": a.placement
            for a in manifest.artifacts
            if a.placement is not None
        },
    )


def _commands(request: ValidateRequest, manifest: Manifest, bundle: Bundle) -> list[str]:
    """Return the commands that made all this, repeat the validation, and judge again."""
    made = [bundle.command, *manifest.commands.values()]
    words = request.command()
    again = [words, [*words, "--judge-only"]]
    if request.overrides:  # which no option of the command line says
        again = [["sdconv", "build", "recipe.yaml"]]
    return [shlex.join(c) for c in (*made, *again) if c]
