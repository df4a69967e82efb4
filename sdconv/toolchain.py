"""`sdconv toolchain`: the vendors' compilers, each in an environment of its own."""

from typing import Annotated

import typer

app = typer.Typer(
    help="List, install and check the vendors' compilers.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Which one, as 'sdconv toolchain list' names it.")]


@app.command("list")
def list_toolchains() -> None:
    """Every toolchain known: version, targets served, where it is and what it weighs."""
    from rich.table import Table

    from sdconv.console import out
    from targets.toolchains import TOOLCHAINS, get_toolchain

    table = Table("toolchain", "version", "targets", "state", "on disk", "folder")
    for name in TOOLCHAINS:
        toolchain = get_toolchain(name)
        there = toolchain.folder.is_dir()
        state = "not installed" if not there else "damaged" if toolchain.problem() else "installed"
        table.add_row(
            name,
            toolchain.version,
            ", ".join(toolchain.targets),
            state,
            f"{toolchain.disk_bytes() / 1e9:.2f} GB" if there else "-",
            str(toolchain.folder) if there else "-",
        )
    out.print(table)


@app.command()
def install(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Build it again from nothing.")] = False,
) -> None:
    """Build a toolchain's environment; says so when it is there already."""
    from sdconv.console import progress_bar
    from targets.toolchains import get_toolchain

    toolchain = get_toolchain(name)
    with progress_bar() as progress:
        fresh = toolchain.install(progress, force=force)
    state = "installed" if fresh else "is installed already"
    typer.echo(f"{toolchain.name} {toolchain.version} {state}: {toolchain.folder}")


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(help="Which one; all of them when left out.")] = "",
) -> None:
    """Prove a toolchain: compile and run a small network with a known answer."""
    from sdconv.console import progress_bar
    from targets.base import ToolchainError
    from targets.toolchains import TOOLCHAINS, get_toolchain

    failed: list[str] = []
    for each in [name] if name else list(TOOLCHAINS):
        toolchain = get_toolchain(each)
        with progress_bar() as progress:
            proofs = toolchain.prove(progress)
        typer.echo(f"{toolchain.name} {toolchain.version}: {toolchain.folder}")
        for proof in proofs:
            typer.echo(f"  {'ok  ' if proof.works else 'FAIL'} {proof.what}: {proof.detail}")
        failed += [f"{each}: {proof.what}: {proof.detail}" for proof in proofs if not proof.works]
    if failed:
        raise ToolchainError("; ".join(failed))
