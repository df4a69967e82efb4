"""The report for programs: schema 1. Numbers that could not be computed are null."""

from typing import Any

from validate.base import Check, Report, Result, Threshold


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
        "conformance": [
            {**file.__dict__, "faults": list(file.faults)} for file in report.conformance
        ],
        "sources": [dict(source) for source in report.sources],
        "adapters": [dict(adapter) for adapter in report.adapters],
        "versions": {step: dict(versions) for step, versions in report.versions.items()},
        "commands": list(report.commands),
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
