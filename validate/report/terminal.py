"""The report for whoever waits: tables and sentences for a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.latency import PictureTime
from targets.base import Artifact, Estimate
from validate.base import Report, Result, Verdict
from validate.latency import Latency
from validate.timing import Measured

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCOMPLETE: "yellow"}

BUSY = 0.8
"""Cores used below which a run that only computes was kept waiting."""


def print_report(report: Report, console: Console) -> None:
    """Print every artifact's worst case, then the verdict in words."""
    table = _table("artifact")
    table.add_column("target")
    for column in ("PSNR (needed)", "cosine", "max error"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for result in report.results:
        table.add_row(*_row(result))
    console.print(table)
    for result in report.results:
        if result.verdict is not Verdict.PASS:
            style = STYLES[result.verdict]
            console.print(Text(f"{result.label}: {result.worst.ruling.sentence}", style=style))
    for file in report.conformance:
        if not file.faults:
            said = f"{file.path}: conforms to {file.consumer} ({file.reader})"
            console.print(Text(said, style=STYLES[Verdict.PASS]), soft_wrap=True)
        for fault in file.faults:
            said = f"{file.path}: would not load in hosts of {file.consumer}: {fault}"
            console.print(Text(said, style=STYLES[Verdict.FAIL]), soft_wrap=True)
    console.print(Text(f"{report.verdict}: {report.sentence}.", style=STYLES[report.verdict]))


def print_latency(latency: Latency, console: Console) -> None:
    """Print what is predicted: a table of artifacts, then each picture in one line."""
    targets = ", ".join(dict.fromkeys(a.target for a in latency.artifacts))
    _say(console, f"predicted for {targets} by the compiler, not measured on a device:")
    table = _table("artifact")
    for column in ("ms", "compute", "both", "DMA", "idle", "traffic MB", "memory MB"):
        table.add_column(column, justify="right")
    for artifact in latency.artifacts:
        table.add_row(_name(artifact), f"{artifact.predicted_ms:.2f}", *_spent(artifact.estimate))
    console.print(table)
    for time in latency.pictures:
        print_picture_time(time, latency.sampling, console)
    for lacking in latency.lacking:
        _say(console, f"no time of a picture: {lacking}")
    for c in latency.published:
        _say(
            console,
            f"{c.published.label}: {c.predicted_ms:.1f} ms predicted "
            f"({c.precision}), {c.published.ms:.1f} ms measured ({c.published.conditions}; "
            f"{c.published.source})",
        )


def print_measured(measured: Measured, console: Console) -> None:
    """Print what was measured: a table of artifacts, then each picture in one line."""
    _say(
        console,
        f"measured here, {measured.processor}, {measured.cores} cores, as many threads as the "
        "library chooses; each artifact alone in a process, after a run to warm up (cores: "
        "processor time by time):",
    )
    table = _table("artifact")
    table.add_column("target")
    for column in ("median ms", "least", "most", "runs", "cores", "peak MB"):
        table.add_column(column, justify="right")
    for t in measured.timings:
        times = (f"{ms:.1f}" for ms in (t.median_ms, min(t.runs_ms), max(t.runs_ms)))
        counts = (str(len(t.runs_ms)), f"{t.cores_used:.1f}", f"{t.peak / 1e6:.0f}")
        table.add_row(_name(t.artifact), t.artifact.target, *times, *counts)
    console.print(table)
    if any(t.cores_used < BUSY for t in measured.timings):
        _say(console, "other work kept the cores busy: measure again when they are idle")
    for time in measured.pictures:
        print_picture_time(time, measured.sampling, console)
    for lacking in measured.lacking:
        _say(console, f"no time of a picture: {lacking}")


def print_picture_time(time: PictureTime, sampling: str, console: Console) -> None:
    """Print what one picture takes, and of what that is made."""
    shares = " + ".join(f"{s.component} {s.runs} x {s.ms:.4g}" for s in time.shares)
    _say(
        console,
        f"one picture {time.size} on {time.target}, {sampling}: {time.words} = {shares} ms",
    )


def _spent(estimate: Estimate | None) -> tuple[str, ...]:
    if estimate is None:
        return ("-",) * 6
    engines = estimate.engines
    times = (engines.compute_ms, engines.both_ms, engines.dma_ms, engines.idle_ms)
    sizes = (estimate.loaded + estimate.stored, estimate.memory.total)
    return (*(f"{ms:.2f}" for ms in times), *(f"{size / 1e6:.1f}" for size in sizes))


def _name(artifact: Artifact) -> str:
    return artifact.label + (f" x {artifact.batch}" if artifact.batch > 1 else "")


def _table(first: str) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))  # fits 80 columns
    table.add_column(first, no_wrap=True)
    return table


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _row(result: Result) -> tuple[str | Text, ...]:
    measured = result.worst.measurement
    agreement = None if measured is None else measured.agreement
    name = " ".join(str(p) for p in (result.component, result.size, result.precision) if p)
    numbers = (f"- ({result.threshold.psnr_db:g})", "-", "-")
    if agreement is not None:
        numbers = (
            f"{agreement.psnr_db:.1f} ({result.threshold.psnr_db:g})",
            f"{agreement.cosine:.6f}",
            f"{agreement.max_abs_error:.2e}",
        )
    verdict = Text(result.verdict, style=STYLES[result.verdict])
    return (name, result.target, *numbers, verdict)
