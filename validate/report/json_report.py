"""The report for programs: schema 2, as `report.schema.json` beside this file describes it.

Numbers that could not be computed are null.
"""

from dataclasses import asdict
from typing import Any

from runtime.latency import PictureTime
from targets.base import Artifact
from targets.manifest import artifact_to_json
from validate.attribution import Attribution
from validate.base import Check, Measurement, Recognition, Report, Result, Threshold
from validate.baseline import TOLERANCE_DB, Comparison
from validate.latency import Latency
from validate.rescue.repair import Repair
from validate.timing import Measured

SCHEMA = 2


def report_to_json(report: Report) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "schema": SCHEMA,
        "verdict": report.verdict.value,
        "sentence": report.sentence,
        "created": report.created,
        "artifacts": str(report.artifacts),
        "bundle": str(report.bundle),
        "results": [_result(result) for result in report.results],
        "latency": None if report.latency is None else latency_to_json(report.latency),
        "attributions": [_attribution(one) for one in report.attributions],
        "repairs": [_repair(repair) for repair in report.repairs],
        "comparison": None if report.comparison is None else _comparison(report.comparison),
        "conformance": [
            {**file.__dict__, "faults": list(file.faults)} for file in report.conformance
        ],
        "placements": {
            name: {**asdict(placement), "share": placement.share}
            for name, placement in report.placements.items()
        },
        "unproven": dict(report.unproven),
        "sources": [dict(source) for source in report.sources],
        "adapters": [dict(adapter) for adapter in report.adapters],
        "versions": {step: dict(versions) for step, versions in report.versions.items()},
        "commands": list(report.commands),
        "recipe": report.recipe,
    }


def _attribution(attribution: Attribution) -> dict[str, Any]:
    return {
        "target": attribution.target,
        "size": str(attribution.size),
        "level": attribution.level,
        "about": attribution.about,
        "sentence": attribution.sentence,
        "together": _numbers(attribution.together),
        "shares": [
            {
                "component": share.component,
                "precision": share.precision,
                "cost_db": attribution.cost_db(share),
                **_numbers(share.measurement),
            }
            for share in attribution.by_cost
        ],
    }


def _repair(repair: Repair) -> dict[str, Any]:
    table = None if repair.table is None else str(repair.table)
    return {
        **asdict(repair),
        "kept": list(repair.kept),
        "table": table,
        "sentence": repair.sentence,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "baseline": str(comparison.baseline),
        "created": comparison.created,
        "sentence": comparison.sentence,
        "tolerance_db": TOLERANCE_DB,
        "changes": [
            {**asdict(change), "trend": change.trend.value, "regression": change.is_regression}
            for change in comparison.changes
        ],
    }


def latency_to_json(latency: Latency) -> dict[str, Any]:
    """As plain JSON values: predicted milliseconds, and bytes."""
    return {
        "about": "predicted by the compiler, not measured on a device",
        "artifacts": [
            {**_artifact(a), "ms": a.predicted_ms, "estimate": artifact_to_json(a)["estimate"]}
            for a in latency.artifacts
        ],
        "sampling": latency.sampling,
        "pictures": [_picture(time) for time in latency.pictures],
        "published": [
            {
                "what": c.published.label,
                "target": c.target,
                "precision": c.precision,
                "predicted_ms": c.predicted_ms,
                "published_ms": c.published.ms,
                "conditions": c.published.conditions,
                "source": c.published.source,
            }
            for c in latency.published
        ],
    }


def measured_to_json(measured: Measured) -> dict[str, Any]:
    """As plain JSON values: milliseconds of every run, and bytes."""
    return {
        "about": "measured on this machine; pictures are added up from the medians",
        "processor": measured.processor,
        "cores": measured.cores,
        "artifacts": [
            {
                **_artifact(t.artifact),
                "ms": t.median_ms,
                "runs_ms": list(t.runs_ms),
                "peak": t.peak,
                "cores_used": t.cores_used,
            }
            for t in measured.timings
        ],
        "sampling": measured.sampling,
        "pictures": [_picture(time) for time in measured.pictures],
    }


def _artifact(artifact: Artifact) -> dict[str, Any]:
    names = ("component", "target", "chip", "size", "batch", "precision", "path")
    described = artifact_to_json(artifact)
    return {name: described[name] for name in names}


def _picture(time: PictureTime) -> dict[str, Any]:
    return {
        "target": time.target,
        "size": str(time.size),
        "ms": time.ms,
        "shares": [asdict(share) for share in time.shares],
    }


def _result(result: Result) -> dict[str, Any]:
    """Describe one artifact; its numbers are those of its worst check, and `cases` has them all."""
    return {
        "component": result.component,
        "target": result.target,
        "chip": result.chip,
        "size": None if result.size is None else str(result.size),
        "batch": result.batch,
        "precision": result.precision,
        "level": result.level,
        "path": result.path,
        **_check(result.worst),
        "verdict": result.verdict.value,
        "threshold": _threshold(result.threshold),
        "note": result.note,
        "blame": result.blame,
        "recognition": None if result.recognition is None else _recognition(result.recognition),
        "cases": [_check(check) for check in result.checks],
    }


def _recognition(seen: Recognition) -> dict[str, Any]:
    return {
        "verdict": seen.ruling.verdict.value,
        "sentence": seen.ruling.sentence,
        "pictures": [
            {"prompt": prompt, "artifact": asdict(mine), "reference": asdict(reference)}
            for prompt, mine, reference in zip(seen.prompts, seen.mine, seen.reference, strict=True)
        ],
    }


def _numbers(measured: Measurement | None) -> dict[str, Any]:
    """What was measured, null where there are no numbers."""
    agreement = None if measured is None else measured.agreement
    numbers = ("max_abs_error", "cosine", "psnr_db", "sqnr_db", "gain")
    counts = ("nan", "inf", "count", "peak", "ssim")
    return {
        **{name: None if agreement is None else getattr(agreement, name) for name in numbers},
        **{name: None if measured is None else getattr(measured, name) for name in counts},
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "case": check.case,
        "position": check.position,
        "link": check.link,
        "output": check.output,
        "verdict": check.ruling.verdict.value,
        "reason": check.ruling.sentence,
        **_numbers(check.measurement),
        "seconds": check.seconds,
        "saved": None if check.saved is None else str(check.saved),
        "reference": None if check.reference is None else str(check.reference),
    }


def _threshold(threshold: Threshold) -> dict[str, Any]:
    return {name: value for name, value in threshold.__dict__.items() if name != "precision"}
