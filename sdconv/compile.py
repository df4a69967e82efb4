"""`sdconv compile`: a bundle becomes artifacts of a target, judged."""

from pathlib import Path
from typing import Annotated

import typer


def compile_(
    bundle: Annotated[Path, typer.Option("-n", "--bundle", help="Folder made by 'sdconv export'.")],
    target: Annotated[str, typer.Option("--target", "-t", help="See 'sdconv targets'.")],
    sizes: Annotated[
        str,
        typer.Option(
            help="Picture sizes WIDTHxHEIGHT, comma-separated; -s W H [W H ...] does the same."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the artifacts.")] = Path(
        "artifacts"
    ),
    precision: Annotated[
        str, typer.Option(help="Override per component: unet=f16,vae_decoder=bf16.")
    ] = "",
    batch: Annotated[int | None, typer.Option("-b", "--batch", help="UNet batch.")] = None,
    components: Annotated[
        str | None, typer.Option(help="Compile only these, comma-separated.")
    ] = None,
    effort: Annotated[
        str, typer.Option(help="high lets a chip's compiler search minutes longer.")
    ] = "normal",
    no_validate: Annotated[
        bool, typer.Option("--no-validate", help="Do not judge the artifacts.")
    ] = False,
    emulator_budget: Annotated[
        float, typer.Option(help="Minutes that one artifact may take on a chip emulator.")
    ] = 10.0,
) -> None:
    """Compile a bundle for a target at every size, then judge each artifact against torch."""
    from converter.sizes import parse_sizes
    from sdconv.console import err, out, progress_bar
    from targets.compile import CompileRequest, compile_bundle, parse_precisions
    from validate.latency import predicted_latency
    from validate.report.terminal import print_latency

    request = CompileRequest(
        bundle=bundle,
        target=target,
        sizes=parse_sizes(sizes),
        output=output,
        precision=parse_precisions(precision),
        batch=batch,
        components=tuple(components.split(",")) if components else None,
        effort=effort,
    )
    with progress_bar() as progress:
        manifest = compile_bundle(request, progress).of_target(target)
    for artifact in manifest.artifacts:
        facts = [artifact.component, str(artifact.size or "any size"), artifact.precision]
        facts.append(f"reused ({artifact.why})" if artifact.reused else artifact.how)
        line = f"{output / artifact.path}: {', '.join(facts)}"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    latency = predicted_latency(manifest, manifest.load_bundle())
    if latency is not None:
        print_latency(latency, out)
    if no_validate:
        err.print("not judged (--no-validate): run 'sdconv validate' before you trust these")
        return
    from sdconv.validate import validate

    validate(output, emulator_budget=emulator_budget)
