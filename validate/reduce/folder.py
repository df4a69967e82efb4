"""Reduce everything that failed in a folder of artifacts."""

from collections.abc import Callable

from converter.progress import Progress
from targets.base import Target
from targets.manifest import Manifest
from targets.registry import get_target
from validate.base import Level, Report
from validate.judge import judges
from validate.reduce.reduce import Reduction, reduce_failed
from validate.validate import ValidateRequest

FOLDER = "repro"
"""Where the folders go, inside the artifacts' folder."""


def reduce_all(
    report: Report,
    request: ValidateRequest,
    progress: Progress,
    open_target: Callable[[str], Target] = get_target,
) -> list[Reduction]:
    """Reduce every artifact that the report fails."""
    manifest = Manifest.load(request.artifacts)
    return reduce_failed(
        report.results,
        manifest,
        manifest.load_bundle(request.bundle),
        open_target,
        judges(request.overrides)[Level.COMPONENT],
        request.artifacts / FOLDER,
        progress,
    )
