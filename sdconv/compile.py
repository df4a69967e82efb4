"""`sdconv compile`: a bundle becomes artifacts of a target, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import model_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converter.sizes import Size
    from targets.compile import CompileRequest
    from targets.manifest import Manifest


Sizes = Annotated[
    str | None,
    typer.Option(
        help="Picture sizes WIDTHxHEIGHT, comma-separated; -s W H [W H ...] does the same; left "
        "out: what the profile's own tools make."
    ),
]
AddedSizes = Annotated[
    str | None,
    typer.Option(
        help="Sizes to add to what the folder holds, made as it was made: needs -o, and --target "
        "where it holds several."
    ),
]
Effort = Annotated[str, typer.Option(help="high lets a chip's compiler search minutes longer.")]
QuantizeTables = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COMPONENT=FILE",
        help="Precision of single operations: lines of name and mode; may be repeated.",
    ),
]


def compile_(
    bundle: Annotated[
        Path | None, typer.Option("-n", "--bundle", help="Folder made by 'sdconv export'.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help="See 'sdconv targets'; left out: what the profile's hosts run."
        ),
    ] = None,
    sizes: Sizes = None,
    add_sizes: AddedSizes = None,
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
    quantize_table: QuantizeTables = None,
    batch: Annotated[int | None, typer.Option("-b", "--batch", help="UNet batch.")] = None,
    components: Annotated[
        str | None, typer.Option(help="Compile only these, comma-separated.")
    ] = None,
    effort: Effort = "normal",
    static: Annotated[
        bool,
        typer.Option("--static", help="A file for each size, where one would serve them all."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(help="Compile so many at a time, as far as memory goes.")
    ] = 1,
    family: model_options.Family = None,
    no_validate: Annotated[
        bool, typer.Option("--no-validate", help="Do not judge the artifacts.")
    ] = False,
    emulator_budget: Annotated[
        float, typer.Option(help="Minutes that one artifact may take on a chip emulator.")
    ] = 10.0,
    print_recipe: model_options.PrintRecipe = False,
) -> None:
    """Compile a bundle for a target at every size, then judge each artifact against torch."""
    from sdconv.console import err, progress_bar
    from targets.compile import CompileRequest, compile_bundle, parse_precisions, parse_tables

    if add_sizes is not None:
        others = (sizes, precision, calibration, quantize_table, batch, components, family)
        chosen = (*others, effort != "normal", static)
        request = _larger(output, add_sizes, target, bundle, chosen)
    else:
        folder = _bundle_folder(bundle)
        target, parsed = _defaults(folder, target, sizes, family)
        request = CompileRequest(
            bundle=folder,
            target=target,
            sizes=parsed,
            output=output,
            precision=parse_precisions(precision),
            batch=batch,
            components=tuple(components.split(",")) if components else None,
            effort=effort,
            calibration=calibration,
            quantize_tables=parse_tables(quantize_table or ()),
            static=static,
        )
    request = replace(request, at_once=jobs)
    if print_recipe:
        _print_recipe(request)
        return
    with progress_bar() as progress:
        manifest = compile_bundle(request, progress).of_target(request.target)
    _tell(manifest)
    if no_validate:
        err.print("not judged (--no-validate): run 'sdconv validate' before you trust these")
        return
    from sdconv.validate import validate

    validate(output, emulator_budget=emulator_budget)


def _print_recipe(request: CompileRequest) -> None:
    from converter.bundle import Bundle
    from sdconv.recipe.requests import of_compile
    from sdconv.recipe.writing import recipe_yaml

    text = recipe_yaml(of_compile([request], Bundle.load(request.bundle)))
    typer.echo(text, nl=False)


def _larger(
    output: Path, sizes: str, target: str | None, bundle: Path | None, others: Sequence[object]
) -> CompileRequest:
    """The request of --add-sizes; raises InputError where `others`, which it has, are given."""
    from converter.errors import InputError
    from converter.sizes import parse_sizes
    from targets.adding import with_sizes

    if any(others):
        raise InputError(
            "--add-sizes makes the sizes as the others in the folder were made: leave out what is "
            "chosen besides, or name all sizes with --sizes"
        )
    return with_sizes(output, parse_sizes(sizes), target, bundle)


def _tell(manifest: Manifest) -> None:
    """What was made, and how long the compiler says that it takes."""
    from sdconv.console import out
    from validate.latency import predicted_latency
    from validate.report.terminal import print_latency, print_placement

    for artifact in manifest.artifacts:
        facts = [artifact.component, str(artifact.size or "any size"), artifact.precision]
        facts.append(f"reused ({artifact.why})" if artifact.reused else artifact.how)
        line = f"{manifest.folder / artifact.path}: {', '.join(facts)}"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    for artifact in manifest.artifacts:
        if artifact.placement is not None:
            print_placement(artifact.label, artifact.placement, out)
    latency = predicted_latency(manifest, manifest.load_bundle())
    if latency is not None:
        print_latency(latency, out)


def _bundle_folder(folder: Path | None) -> Path:
    """The bundle that is meant; the original's export appended ``_sd15`` to what -o named."""
    from converter.bundle import BUNDLE_FILE
    from converter.errors import InputError
    from converter.families.registry import FAMILIES
    from sdconv.console import err

    if folder is None:
        raise InputError("name the bundle to compile with -n FOLDER")
    name, _, version = folder.name.rpartition("_")
    if (folder / BUNDLE_FILE).is_file() or not name:
        return folder
    exported = folder.with_name(name)
    if version in FAMILIES and (exported / BUNDLE_FILE).is_file():
        err.print(f"{folder}: taken from {exported}, where it was exported to", soft_wrap=True)
        return exported
    if any(folder.glob("unet/unet_*.pt")):
        raise InputError(
            f"{folder}: an export of the original tool, without the graphs that are compiled here: "
            "run 'sdconv export -u CHECKPOINT -o FOLDER' and compile that"
        )
    return folder


def _defaults(
    folder: Path, target: str | None, sizes: str | None, family: str | None
) -> tuple[str, tuple[Size, ...]]:
    """Target and sizes as given, else the profile's. Raises InputError for another family."""
    from converter.architecture import Architecture
    from converter.bundle import Bundle
    from converter.families.registry import check_family
    from converter.profiles import get_profile
    from converter.sizes import parse_sizes

    if target is not None and sizes is not None and family is None:
        return target, parse_sizes(sizes)
    bundle = Bundle.load(folder)
    if family is not None:
        check_family(family, bundle.family)
    profile = get_profile(bundle.profile)
    deployment = profile.deployment(Architecture.from_json(bundle.architecture))
    if sizes is None and deployment is not None:
        return target or profile.target, (deployment.size,)
    if sizes is None and not any(c.interface.has_size for c in bundle.components.values()):
        return target or profile.target, ()
    return target or profile.target, parse_sizes(sizes or "")
