"""`sdconv adreno`: what a phone with Qualcomm's Adreno needs besides artifacts."""

from pathlib import Path
from typing import Annotated

import typer

from sdconv import picture_options as options

app = typer.Typer(help="What a phone with an Adreno needs besides artifacts.", no_args_is_help=True)

AdrenoTarget = Annotated[str, typer.Option("--target", "-t", help="adreno-clml or adreno-opencl.")]


@app.command()
def runner(
    artifacts: options.Artifacts,
    target: AdrenoTarget = "adreno-clml",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path(
        "phone"
    ),
) -> None:
    """Write a program that runs the artifacts on a phone, and a self-test with known answers."""
    from sdconv.console import out, progress_bar
    from targets.manifest import Manifest
    from targets.registry import get_target
    from targets.tvm.phone_bundle import write_phone_bundle

    _check(target)
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


@app.command()
def memory(
    artifacts: options.Artifacts,
    target: AdrenoTarget = "adreno-clml",
    device: Annotated[int, typer.Option(help="Memory of the phone in GB: 12 or 16.")] = 12,
    single: Annotated[
        bool, typer.Option("--single", help="All of it in one process, instead of in stages.")
    ] = False,
) -> None:
    """Tell what must be in a phone's memory; exit code 2 where it has not the room."""
    from converter.errors import InputError
    from runtime.staged import staged_artifacts
    from sdconv.console import out
    from targets.manifest import Manifest
    from targets.tvm.memory_plan import SYSTEM, plan

    _check(target)
    if device not in SYSTEM:
        raise InputError(f"a device of {device} GB: known are {', '.join(map(str, SYSTEM))}")
    manifest = Manifest.load(artifacts)
    bundle = manifest.load_bundle()
    mine = manifest.of_target(target).artifacts
    refusals = []
    for size in dict.fromkeys(a.size for a in mine if a.size is not None):
        chosen = staged_artifacts(manifest, bundle, target, size)
        planned = plan(manifest, chosen.values())
        for stage, residents in planned.stages:
            for r in residents:
                out.print(
                    f"{size} {stage} {r.artifact.component} on {r.artifact.target}: weights "
                    f"{r.weights / 1e6:.0f} MB, tensors {r.activations / 1e6:.0f} MB, while "
                    f"loading {r.loading / 1e6:.0f} MB, runtime {r.runtime / 1e6:.0f} MB",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
        out.print(
            f"{size}: at most {planned.staged / 1e9:.2f} GB in stages, "
            f"{planned.together / 1e9:.2f} GB in one process",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        refusal = planned.refusal(device, staged=not single)
        refusals += [] if refusal is None else [f"{size}: {refusal}"]
    if refusals:
        raise InputError("; ".join(refusals))


def _check(target: str) -> None:
    """Raise InputError for a target that is for no phone."""
    from converter.errors import InputError
    from targets.tvm.kinds import KINDS

    if target not in KINDS or KINDS[target].chip is None:
        phones = ", ".join(kind.name for kind in KINDS.values() if kind.chip is not None)
        raise InputError(f"target {target!r} is for no phone: choose one of {phones}")
