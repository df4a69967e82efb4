"""`sdconv skeleton`: what is compiled already, and how it gets to a machine without a compiler."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="List, export and import compiled skeletons, which any weights can be bound to.",
    no_args_is_help=True,
)

Archive = Annotated[Path, typer.Argument(help="An archive, .tar.xz.")]


@app.command("list")
def list_skeletons() -> None:
    """Every skeleton that is kept: what it is, its toolchain, what it weighs, where it lies."""
    from rich.table import Table

    from converter.cache import SKELETONS, Cache
    from sdconv.console import out

    table = Table("skeleton", "made by", "on disk", "folder")
    for entry in Cache(SKELETONS).entries():
        made_by = entry.inputs.get("toolchain", "sdconv")
        table.add_row(entry.label, made_by, f"{entry.nbytes / 1e6:.1f} MB", entry.path.name)
    out.print(table)


@app.command("export")
def export_skeletons(
    archive: Archive,
    bundle: Annotated[Path, typer.Option("-n", "--bundle", help="Folder made by 'sdconv export'.")],
    target: Annotated[str, typer.Option("--target", "-t", help="See 'sdconv targets'.")],
    sizes: Annotated[str, typer.Option(help="Picture sizes WIDTHxHEIGHT, comma-separated.")],
    precision: Annotated[str, typer.Option(help="As given to 'sdconv compile'.")] = "",
    components: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    effort: Annotated[str, typer.Option(help="As given to 'sdconv compile'.")] = "normal",
    calibration: Annotated[Path | None, typer.Option(help="As given to 'sdconv compile'.")] = None,
) -> None:
    """Write what 'sdconv compile' made, for these options, into an archive.

    On another machine, after 'sdconv skeleton import', the same compile needs no toolchain, for any
    checkpoint of this architecture.
    """
    from converter.sizes import parse_sizes
    from sdconv.console import out
    from targets import skeletons
    from targets.compile import CompileRequest, find_skeletons, parse_precisions

    request = CompileRequest(
        bundle=bundle,
        target=target,
        sizes=parse_sizes(sizes),
        precision=parse_precisions(precision),
        components=tuple(components.split(",")) if components else None,
        effort=effort,
        calibration=calibration,
    )
    entries = find_skeletons(request)
    skeletons.export_skeletons(entries, archive)
    size = archive.stat().st_size / 1e6
    line = f"{archive}: {len(entries)} skeletons, {size:.1f} MB"
    out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("import")
def import_skeletons(archive: Archive) -> None:
    """Take in the skeletons of an archive; those that are there already stay."""
    from sdconv.console import out
    from targets import skeletons

    for entry in skeletons.import_skeletons(archive):
        out.print(entry.label, highlight=False, markup=False, soft_wrap=True)
