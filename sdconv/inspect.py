"""`sdconv inspect`: what a file or folder is, from its headers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import model_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.inspection import Inspection


def inspect(
    file: Annotated[str, typer.Argument(help="A checkpoint, a part of one, or a LoRA.")],
    variant: model_options.Variant = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Tell what a file is: kind, family, parts, every hyper-parameter. Reads headers only."""
    from json import dumps

    from converter.downloads.fetch import local_path
    from converter.inspection import inspect as inspect_file
    from sdconv.console import progress_bar

    with progress_bar() as progress:
        found = inspect_file(local_path(file, variant, progress), variant)
    if json:
        typer.echo(dumps(found.to_json(), indent=1))
    else:
        _print(found)


def _print(found: Inspection) -> None:
    from rich.table import Table

    from sdconv.console import out

    out.print(
        f"{found.path}: {found.kind}, family {found.family}, {found.bytes / 1e6:.1f} MB",
        soft_wrap=True,
    )
    for line in _files(found):
        out.print(line, markup=False, soft_wrap=True)
    if found.components:
        table = Table("component", "present", "parameters", "stored as")
        for name, facts in found.components.items():
            present = "yes" if facts.present else "missing"
            table.add_row(name, present, f"{facts.parameters:,}", facts.dtype or "-")
        out.print(table)
    if found.architecture is not None:
        for part, values in found.architecture.to_json().items():
            if isinstance(values, dict):
                listed = ", ".join(f"{name} {value}" for name, value in values.items())
                out.print(f"{part}: {listed}", soft_wrap=True)
    for problem in found.problems[:20]:
        out.print(f"problem: {problem}", markup=False, soft_wrap=True)
    if len(found.problems) > 20:
        out.print(f"... and {len(found.problems) - 20} more (all with --json)")


def _files(found: Inspection) -> Iterator[str]:
    """What the files are, what they lack, and what is in them."""
    yield f"container: {found.container}"
    for part, spelling in found.spellings.items():
        yield f"{part}: {spelling}"
    if found.has_ema:
        yield "it holds EMA copies of the UNet: export takes them with --ema"
    for part, option in found.missing.items():
        yield f"missing: {part}; export takes it from {option} FILE"
    yield from _nature(found)


def _nature(found: Inspection) -> Iterator[str]:
    """What kind of model or adapter it is, and how a checkpoint is sampled."""
    from converter.architecture import CONTROLNET

    if found.adapter is not None:
        ranks = ", ".join(map(str, found.adapter.rank)) or "none"
        yield (
            f"{found.adapter.kind} for {found.adapter.target_family}, rank {ranks}, "
            f"{found.adapter.modules} modules"
        )
    elif found.kind == CONTROLNET:
        yield "export takes it with -c, beside a checkpoint"
    else:
        terminal = ", zero terminal SNR" if found.prediction.zero_terminal_snr else ""
        yield f"variant: {found.variant}"
        yield f"prediction type: {found.prediction.type}{terminal} ({found.prediction.reason})"
