"""`sdconv export`: a checkpoint and its LoRAs become a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import model_options

if TYPE_CHECKING:
    from converter.bundle import Bundle
    from converter.export import ExportRequest


class Format(StrEnum):
    """What to write."""

    onnx = "onnx"
    torchscript = "torchscript"
    both = "both"


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    checkpoint: model_options.Checkpoint = None,
    unet: model_options.UNet = None,
    vae: model_options.Vae = None,
    text_encoder: model_options.TextEncoder = None,
    text_encoder_2: model_options.TextEncoder2 = None,
    controlnet: model_options.ControlNets = None,
    controlnet_merge: model_options.ControlNetMerge = None,
    variant: model_options.Variant = None,
    ema: model_options.Ema = False,
    lora: model_options.Lora = None,
    batch: model_options.Batch = None,
    family: model_options.Family = None,
    profile: model_options.Profile = "sd-lcm-tpu",
    format_: Annotated[
        Format, typer.Option("--format", help="onnx, the original tool's torchscript, or both.")
    ] = Format.onnx,
    components: model_options.Components = None,
    prediction: model_options.Prediction = None,
    zero_terminal_snr: model_options.ZeroTerminalSnr = False,
    link: model_options.Link = False,
    clip_skip: model_options.ClipSkip = None,
    embedding: model_options.Embedding = None,
    allow_unused: model_options.AllowUnused = False,
    print_recipe: model_options.PrintRecipe = False,
) -> None:
    """Export a checkpoint (and LoRAs) to weightless-made ONNX graphs with weights beside them."""
    from converter.export import ExportRequest
    from converter.export import export as run
    from sdconv.console import progress_bar

    with progress_bar() as progress:
        local = model_options.LocalFiles(variant, progress)
        request = ExportRequest(
            checkpoint=None if checkpoint is None else local.model(checkpoint),
            output=output,
            adapters=local.adapters(lora),
            profile=profile,
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
            family=family,
        )
        if print_recipe:
            _print_recipe(request)
            return
        bundle = run(request, progress)
        if format_ != Format.onnx:
            from converter.torchscript import export_torchscript

            export_torchscript(bundle, progress)
    _report(bundle)


def _print_recipe(request: ExportRequest) -> None:
    from sdconv.recipe.requests import of_export
    from sdconv.recipe.writing import recipe_yaml

    text = recipe_yaml(of_export(request))
    typer.echo(text, nl=False)


def _report(bundle: Bundle) -> None:
    from sdconv.adapter_summary import adapter_lines, adapter_warnings
    from sdconv.console import err, out
    from sdconv.picture_options import sentence

    for component in bundle.components.values():
        size = component.weights_bytes / 1e6
        linked = "".join(f", linked to {record['path']}" for record in component.linked.values())
        out.print(
            f"{bundle.folder / component.graph}: {component.parameters / 1e6:.1f} M parameters, "
            f"{size:.0f} MB{linked}",
            highlight=False,
            soft_wrap=True,
        )
    for line in adapter_lines(bundle):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    for word, ids in bundle.words.items():
        listed = ", ".join(map(str, ids))
        out.print(
            f'embedding "{word}": tokens {listed}', highlight=False, markup=False, soft_wrap=True
        )
    for line in adapter_warnings(bundle):
        err.print(f"warning: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if bundle.sampling is not None:
        out.print(sentence(bundle.sampling), highlight=False, markup=False, soft_wrap=True)
    out.print(f"bundle: {bundle.folder}", highlight=False, soft_wrap=True)
