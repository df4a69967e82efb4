"""Validate a folder of artifacts: plan, run, judge, report. For the verb, the page and compile."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from converter.bundle import Bundle
from converter.components import text_encoders
from converter.files import replacing, write_json
from converter.progress import Event, Progress, silent
from runtime.sampling import PictureRequest
from runtime.staging import check_draws
from targets.base import Artifact, Conformance, Target
from targets.manifest import Manifest
from targets.registry import get_target
from validate.base import EMULATOR_BUDGET, Report, Result
from validate.judge import ComponentJudge
from validate.latency import predicted_latency
from validate.picture import draw_pictures
from validate.plan import plan
from validate.references import OpenReference, References, open_torch_reference
from validate.run import Bench, run
from validate.scenes import stand_ins
from validate.verdicts import judge_saved
from validate.versions import versions_here


@dataclass(frozen=True)
class ValidateRequest:
    """What to validate. Paths left out: `report.html` and `report.json` beside the artifacts.

    `bundle` replaces the path in the manifest, for a bundle that was moved. `emulator_budget` is
    in seconds per artifact and per picture. With `judge_only` saved outputs are judged and nothing
    is run. `picture` is drawn with the artifacts of every target at every size.
    """

    artifacts: Path
    report: Path | None = None
    json: Path | None = None
    bundle: Path | None = None
    emulator_budget: float = EMULATOR_BUDGET
    judge_only: bool = False
    picture: PictureRequest | None = None

    @property
    def report_path(self) -> Path:
        """Where the HTML goes."""
        return self.report or self.artifacts / "report.html"

    @property
    def json_path(self) -> Path:
        """Where the JSON goes."""
        return self.json or self.artifacts / "report.json"


def validate(
    request: ValidateRequest,
    progress: Progress = silent,
    *,
    open_target: Callable[[str], Target] = get_target,
    open_reference: OpenReference = open_torch_reference,
) -> Report:
    """Compare every artifact with the fp32 reference and write both reports.

    Raises InputError when artifacts, bundle or torch are not there, or do not belong together.
    """
    # 1. What is there, and is it what it says it is.
    manifest = Manifest.load(request.artifacts)
    bundle = manifest.load_bundle(request.bundle)
    groups = plan(manifest, bundle)
    if request.picture is not None:
        check_draws(bundle, request.picture.controlnets)
    # 2. Run what was not run before.
    outcomes, bench = {}, None
    if not request.judge_only:
        bench = Bench(manifest.folder, open_target, request.emulator_budget, progress, bundle)
        with References(bundle, open_reference) as references:
            outcomes = run(groups, references, bench)
    pictures = []
    if request.picture is not None:
        pictures = draw_pictures(manifest, bundle, request.picture, bench, open_reference)
    # 3. Judge what is saved.
    progress(Event("judge", 0))
    results = [*judge_saved(groups, outcomes, ComponentJudge()), *pictures]
    report = _report(request, manifest, bundle, _with_stand_ins(results, bundle))
    report = replace(
        report,
        conformance=conformance(manifest, bundle, open_target),
        unproven=_unproven(manifest, open_target),
    )
    # 4. Tell.
    write_reports(report, request.report_path, request.json_path)
    progress(Event("judge", 1, f"{report.verdict}: {report.sentence}"))
    return report


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
        placements={
            f"{a.label} on {a.target}": a.placement
            for a in manifest.artifacts
            if a.placement is not None
        },
    )


def _commands(request: ValidateRequest, manifest: Manifest, bundle: Bundle) -> list[str]:
    """Return the commands that made all this, repeat the validation, and judge again."""
    made = [bundle.command, *manifest.commands.values()]
    words = ["sdconv", "validate", str(request.artifacts.absolute())]
    if request.bundle is not None:
        words += ["--bundle", str(request.bundle.absolute())]
    if request.emulator_budget != EMULATOR_BUDGET:
        words += ["--emulator-budget", f"{request.emulator_budget / 60:g}"]
    if request.picture is not None:
        words += request.picture.command()
    return [shlex.join(c) for c in (*made, words, [*words, "--judge-only"]) if c]
