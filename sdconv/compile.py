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
    calibration: Annotated[
        Path | None,
        typer.Option(help="What INT8 takes its ranges from: folder of 'sdconv calibrate'."),
    ] = None,
    quantize_table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMPONENT=FILE",
            help="Precision of single operations: lines of name and mode; may be repeated.",
        ),
    ] = None,
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
    from targets.compile import CompileRequest, compile_bundle, parse_precisions, parse_tables

    request = CompileRequest(
        bundle=bundle,
        target=target,
        sizes=parse_sizes(sizes),
        output=output,
        precision=parse_precisions(precision),
        batch=batch,
        components=tuple(components.split(",")) if components else None,
        effort=effort,
        calibration=calibration,
        quantize_tables=parse_tables(quantize_table or ()),
    )
    with progress_bar() as progress:
        manifest = compile_bundle(request, progress)
    for artifact in manifest.artifacts:
        if artifact.target != target:
            continue
        facts = [artifact.component, str(artifact.size or "any size"), artifact.precision]
        if artifact.predicted_ms is not None:
            facts.append(f"{artifact.predicted_ms:.2f} ms predicted on {artifact.chip}")
        facts.append(f"reused ({artifact.why})" if artifact.reused else artifact.how)
        line = f"{output / artifact.path}: {', '.join(facts)}"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if no_validate:
        err.print("not judged (--no-validate): run 'sdconv validate' before you trust these")
        return
    from sdconv.validate import validate

    validate(output, emulator_budget=emulator_budget)
