"""The report for programs: schema 1. Numbers that could not be computed are null."""

from dataclasses import asdict
from typing import Any

from runtime.latency import PictureTime
from targets.base import Artifact
from targets.manifest import artifact_to_json
from validate.base import Check, Report, Result, Threshold
from validate.latency import Latency
from validate.timing import Measured


def report_to_json(report: Report) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "schema": 1,
        "verdict": report.verdict.value,
        "sentence": report.sentence,
        "created": report.created,
        "artifacts": str(report.artifacts),
        "bundle": str(report.bundle),
        "results": [_result(result) for result in report.results],
        "latency": None if report.latency is None else latency_to_json(report.latency),
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
        "cases": [_check(check) for check in result.checks],
    }


def _check(check: Check) -> dict[str, Any]:
    measured = check.measurement
    agreement = None if measured is None else measured.agreement
    numbers = ("max_abs_error", "cosine", "psnr_db", "sqnr_db", "gain")
    counts = ("nan", "inf", "count", "peak")
    return {
        "case": check.case,
        "link": check.link,
        "output": check.output,
        "verdict": check.ruling.verdict.value,
        "reason": check.ruling.sentence,
        **{name: None if agreement is None else getattr(agreement, name) for name in numbers},
        **{name: None if measured is None else getattr(measured, name) for name in counts},
        "seconds": check.seconds,
        "saved": None if check.saved is None else str(check.saved),
        "reference": None if check.reference is None else str(check.reference),
    }


def _threshold(threshold: Threshold) -> dict[str, Any]:
    return {name: value for name, value in threshold.__dict__.items() if name != "precision"}
