"""The report for whoever waits: one table and one sentence."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from validate.base import Report, Result, Verdict

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCOMPLETE: "yellow"}


def print_report(report: Report, console: Console) -> None:
    """Print every artifact's worst case, then the verdict in words."""
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))  # fits 80 columns
    table.add_column("artifact", no_wrap=True)
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
