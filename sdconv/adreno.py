"""`sdconv adreno`: what a phone with Qualcomm's Adreno needs besides artifacts."""

from pathlib import Path
from typing import Annotated

import typer

from sdconv import picture_options as options

app = typer.Typer(help="What a phone with an Adreno needs besides artifacts.", no_args_is_help=True)

AdrenoTarget = Annotated[str, typer.Option("--target", "-t", help="adreno-clml or adreno-opencl.")]


@app.callback()
def _() -> None:
    """Keep the verbs' names although there are few."""


@app.command()
def runner(
    artifacts: options.Artifacts,
    target: AdrenoTarget = "adreno-clml",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path(
        "phone"
    ),
) -> None:
    """Write a program that runs the artifacts on a phone, and a self-test with known answers."""
    from converter.errors import InputError
    from sdconv.console import out, progress_bar
    from targets.manifest import Manifest
    from targets.registry import get_target
    from targets.tvm.kinds import KINDS
    from targets.tvm.phone_bundle import write_phone_bundle

    if target not in KINDS or KINDS[target].chip is None:
        phones = ", ".join(kind.name for kind in KINDS.values() if kind.chip is not None)
        raise InputError(f"target {target!r} is for no phone: choose one of {phones}")
    manifest = Manifest.load(artifacts).of_target(target)
    with progress_bar() as progress:
        names = write_phone_bundle(manifest, get_target(target), output, progress)
    out.print(
        f"{output}: {', '.join(names)}; next: {output / 'build.sh'}, then "
        f"{output / 'push_and_run.sh'} (see {output / 'README.md'})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
