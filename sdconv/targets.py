"""`sdconv targets`: what can be compiled for, and whether it is ready on this machine."""


def targets() -> None:
    """List the targets, their precisions, and what each still needs here."""
    from rich.table import Table

    from sdconv.console import out
    from targets.base import ToolchainError
    from targets.registry import TARGETS, get_target

    table = Table("target", "makes", "precisions", "ready")
    for name in TARGETS:
        target = get_target(name)
        try:
            target.check_ready()
            ready = "yes"
        except ToolchainError as e:
            ready = f"no: {e}"
            if target.made_without is not None:
                ready += f"; without it: {target.made_without}"
        table.add_row(name, target.summary, ", ".join(target.precisions), ready)
    out.print(table)
