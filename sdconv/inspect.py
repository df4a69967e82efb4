"""`sdconv inspect`: what a file or folder is, and what its export and compilation would need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import model_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.export import ExportRequest
    from converter.inspection import Inspection


def inspect(
    file: Annotated[str, typer.Argument(help="A checkpoint, a part of one, or a LoRA.")],
    variant: model_options.Variant = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Predict memory, disk and time of export and compile, whether this machine can "
            "do it, and the commands; needs --target and --sizes. What follows is for it.",
        ),
    ] = False,
    target: Annotated[str | None, typer.Option("--target", "-t", help="See --plan.")] = None,
    sizes: Annotated[str | None, typer.Option(help="See --plan: 512x512,768x512.")] = None,
    precision: Annotated[str, typer.Option(help="As 'compile' takes it.")] = "",
    effort: Annotated[str, typer.Option(help="As 'compile' takes it.")] = "normal",
    profile: Annotated[
        str | None, typer.Option(help="As 'export' takes it.  [default: what fits]")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where bundle and artifacts would go.")
    ] = Path(),
    unet: model_options.UNet = None,
    vae: model_options.Vae = None,
    text_encoder: model_options.TextEncoder = None,
    text_encoder_2: model_options.TextEncoder2 = None,
    controlnet: model_options.ControlNets = None,
    controlnet_merge: model_options.ControlNetMerge = None,
    ema: model_options.Ema = False,
    lora: model_options.Lora = None,
    batch: model_options.Batch = None,
    components: model_options.Components = None,
    prediction: model_options.Prediction = None,
    zero_terminal_snr: model_options.ZeroTerminalSnr = False,
    link: model_options.Link = False,
    clip_skip: model_options.ClipSkip = None,
    embedding: model_options.Embedding = None,
    allow_unused: model_options.AllowUnused = False,
) -> None:
    """Tell what a file is: kind, family, parts, every hyper-parameter. Reads headers only.

    With --plan, also what turning it into artifacts would need; exit code 1 if it cannot be
    done here.
    """
    from converter.errors import InputError
    from sdconv.console import progress_bar

    if plan != (target is not None and sizes is not None):
        raise InputError(
            "a plan is for a target and sizes: write --plan --target onnxruntime --sizes 512x512"
        )
    if target is None or sizes is None:
        beside = (unet, vae, text_encoder, text_encoder_2, controlnet, controlnet_merge, lora,
                  components, prediction, clip_skip, embedding, ema, zero_terminal_snr, link,
                  allow_unused, batch is not None)  # fmt: skip
        _inspect(file, variant, is_planned=any(beside), json=json)
        return
    from converter.export import ExportRequest  # brings the graph tools with it

    with progress_bar() as progress:
        local = model_options.LocalFiles(variant, progress)
        export = ExportRequest(
            checkpoint=local.model(file),
            output=output / "bundle",
            adapters=local.adapters(lora),
            batch=batch,
            components=tuple(components.split(",")) if components else None,
            allow_unused=allow_unused,
            parts=local.parts(unet, vae, text_encoder, text_encoder_2, controlnet),
            variant=variant,
            ema=ema,
            controlnet_base=None if controlnet_merge is None else local.model(controlnet_merge),
            prediction=prediction,
            zero_terminal_snr=zero_terminal_snr,
            link=link,
            clip_skip=clip_skip,
            embeddings=local.embeddings(embedding),
            addresses=local.addresses,
        )
    _plan(export, target, sizes, output, profile, precision, effort, json=json)


def _inspect(file: str, variant: str | None, *, is_planned: bool, json: bool) -> None:
    """Tell what one file is."""
    from converter.errors import InputError
    from converter.inspection import inspect as inspect_file
    from sdconv.console import progress_bar

    if is_planned:
        raise InputError(
            "what is given beside the file belongs to a plan: add --plan --target onnxruntime "
            "--sizes 512x512, or leave it out"
        )
    with progress_bar() as progress:
        path = model_options.LocalFiles(variant, progress).model(file)
    found = inspect_file(path, variant)
    _print_json(found.to_json()) if json else _print(found)


def _plan(
    export: ExportRequest,
    target: str,
    sizes: str,
    output: Path,
    profile: str | None,
    precision: str,
    effort: str,
    *,
    json: bool,
) -> None:
    """Make and print a plan; exit code 1 if it cannot be done here."""
    from converter.sizes import parse_sizes
    from sdconv.console import out
    from sdconv.preflight.plan import make_plan
    from sdconv.preflight.report import plan_to_json, print_plan
    from sdconv.preflight.request import PlanRequest
    from targets.compile import parse_precisions

    request = PlanRequest(
        export=export,
        target=target,
        sizes=parse_sizes(sizes),
        output=output,
        profile=profile,
        precision=parse_precisions(precision),
        effort=effort,
    )
    found, plan = make_plan(request)
    if json:
        _print_json({**found.to_json(), "plan": plan_to_json(plan)})
    else:
        _print_title(found)
        print_plan(plan, out)
    if not plan.possible:
        raise typer.Exit(1)


def _print_json(data: object) -> None:
    from json import dumps

    typer.echo(dumps(data, indent=1))


def _print(found: Inspection) -> None:
    from rich.table import Table

    from sdconv.console import out

    _print_title(found)
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


def _print_title(found: Inspection) -> None:
    from sdconv.console import out

    out.print(
        f"{found.path}: {found.kind}, family {found.family}, {found.bytes / 1e6:.1f} MB",
        soft_wrap=True,
    )


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
