"""What every verb prints with: results to standard output, progress and notes to standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from converter import progress as contract

out = Console()
err = Console(stderr=True)


@contextmanager
def progress_bar() -> Iterator[contract.Progress]:
    """Show one bar per stage while the block runs; notes stay above the bars.

    Without a terminal, each stage is one line when it begins and each note one line.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=err, transient=True) as bars:

        def show(event: contract.Event) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, total=1.0)
                if not err.is_terminal and event.done < 1:
                    err.print(f"{event.stage} ...", highlight=False, markup=False)
            bars.update(tasks[event.stage], completed=event.done)
            if event.note:
                err.print(f"  {event.note}", highlight=False, markup=False, soft_wrap=True)
            if event.done >= 1:
                bars.remove_task(tasks.pop(event.stage))

        yield show
