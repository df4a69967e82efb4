"""The report for whoever waits: tables and sentences for a terminal."""

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.latency import PictureTime
from targets.base import Artifact, Estimate, Placement
from validate.base import Level, Report, Result, Verdict
from validate.baseline import TOLERANCE_DB, Comparison, Standing, Trend
from validate.latency import Latency
from validate.layers.run import GRAPH_TARGET
from validate.report.sections import wrong
from validate.timing import Measured

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCOMPLETE: "yellow"}

LISTED = 8
"""Kinds of operators that a line names."""

BUSY = 0.8
"""Cores used below which a run that only computes was kept waiting."""


def print_report(report: Report, console: Console) -> None:
    """Print every result's worst case, what is wrong and who is to blame, then the verdict."""
    table = _table("artifact")
    table.add_column("target")
    for column in ("PSNR (needed)", "cosine", "max error"):
        table.add_column(column, justify="right")
    table.add_column("verdict", no_wrap=True)
    for result in report.results:
        if result.level != Level.EXPORT:
            table.add_row(*_row(result))
    console.print(table)
    _print_exports(report, console)
    _print_words(report, console)
    for attribution in report.attributions:
        where = f"{attribution.level} {attribution.size} on {attribution.target}"
        _say(console, f"{where}: {attribution.sentence}")
    _print_files(report, console)
    for repair in report.repairs:
        rescued = Verdict.FAIL if repair.table is None else Verdict.PASS
        _tell(console, f"rescue: {repair.sentence}", rescued)
    if report.comparison is not None:
        _print_comparison(report.comparison, console)
    for target, sentence in report.unproven.items():
        _say(console, f"{target}: {sentence}.")
    _tell(console, f"{report.verdict}: {report.sentence}.", report.verdict)


def _print_words(report: Report, console: Console) -> None:
    """What is wrong and who is to blame, what is open, and what a recogniser sees."""
    for result in wrong(report):
        _tell(console, f"{result.label}: {result.sentence}", Verdict.FAIL)
        if result.blame:
            _tell(console, f"  {result.blame}", Verdict.FAIL)
    for result in report.results:
        if result.verdict is Verdict.INCOMPLETE:
            _tell(console, f"{result.label}: {result.sentence}", Verdict.INCOMPLETE)
        if result.recognition is not None and result.verdict is Verdict.PASS:
            _tell(console, f"{result.label}: {result.recognition.ruling.sentence}", Verdict.PASS)


def _print_exports(report: Report, console: Console) -> None:
    """One line for all exports that are right; those that are not are told with the rest."""
    right = [r.component for r in report.results
             if r.level == Level.EXPORT and r.verdict is Verdict.PASS]  # fmt: skip
    if right:
        said = f"export: {', '.join(right)} are what their sources make them, at every size"
        _tell(console, said, Verdict.PASS)


def _print_files(report: Report, console: Console) -> None:
    for file in report.conformance:
        if not file.faults:
            said = f"{file.path}: conforms to {file.consumer} ({file.reader})"
            _tell(console, said, Verdict.PASS)
        for fault in file.faults:
            said = f"{file.path}: would not load in hosts of {file.consumer}: {fault}"
            _tell(console, said, Verdict.FAIL)


def _print_comparison(comparison: Comparison, console: Console) -> None:
    for change in comparison.changes:
        if change.trend is Trend.SAME:
            continue
        was, is_ = (_standing(one) for one in (change.before, change.after))
        worse = Verdict.FAIL if change.is_regression else Verdict.PASS
        said = f"{change.trend}: {change.label} ({change.level}): {was} to {is_}"
        _tell(console, said, worse if change.trend in (Trend.WORSE, Trend.BETTER) else None)
    _say(console, f"{comparison.sentence} ({TOLERANCE_DB:g} dB are tolerated)")


def _standing(standing: Standing | None) -> str:
    if standing is None:
        return "nothing"
    level = "no number" if standing.psnr_db is None else f"{standing.psnr_db:.1f} dB"
    ms = "" if standing.ms is None else f", {standing.ms:.3f} ms"
    return f"{standing.precision} {level}{ms}, {standing.verdict}"


def _tell(console: Console, line: str, verdict: Verdict | None) -> None:
    """Print a line in the colour of a verdict."""
    style = "" if verdict is None else STYLES[verdict]
    console.print(Text(line, style=style), soft_wrap=True)


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


def print_placement(label: str, placement: Placement, console: Console) -> None:
    """Print what a vendor's library runs of a network, and why it runs no more."""
    _say(console, f"{label}: {placement.sentence}")
    taken: Counter[str] = Counter()
    for row in placement.taken:
        taken[row.operator] += row.count
    _say(console, f"  on {placement.library}: {_listed(taken)}")
    stays: dict[tuple[str, str], Counter[str]] = {}
    for row in placement.staying:
        stays.setdefault((row.where, row.reason), Counter())[row.operator] += row.count
    for (where, reason), operators in sorted(stays.items(), key=lambda item: -item[1].total()):
        _say(console, f"  on {where} ({reason}): {_listed(operators)}")


def _listed(operators: Counter[str]) -> str:
    shown = operators.most_common(LISTED)
    more = operators.total() - sum(count for _, count in shown)
    words = [f"{count} {name}" for name, count in shown]
    return ", ".join([*words, *([f"{more} others (the report names them)"] if more else [])])


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
    inside = "inside" if result.level == Level.LAYER else ""
    words = (inside, result.component, result.size, result.precision)
    name = " ".join(str(word) for word in words if word)
    target = "exported" if result.target == GRAPH_TARGET else result.target
    numbers = (f"- ({result.threshold.psnr_db:g})", "-", "-")
    if agreement is not None:
        numbers = (
            f"{agreement.psnr_db:.1f} ({result.threshold.psnr_db:g})",
            f"{agreement.cosine:.6f}",
            f"{agreement.max_abs_error:.2e}",
        )
    verdict = Text(result.verdict, style=STYLES[result.verdict])
    return (name, target, *numbers, verdict)
