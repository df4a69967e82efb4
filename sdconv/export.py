"""`sdconv export`: a checkpoint and its LoRAs become a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import model_options

if TYPE_CHECKING:
    from converter.bundle import Bundle


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
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "-l",
            "--lora",
            help="LoRA (any kind) to merge: FILE, FILE:0.8 or FILE:0.8,unet=1,text=0.5,down.1=0.3; "
            "may be repeated.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("-b", "--batch", help="UNet batch that compile takes by default.")
    ] = 1,
    profile: Annotated[
        str, typer.Option(help="Whose ports: sd-lcm-tpu (Sophgo hosts) or diffusers (ONNX).")
    ] = "sd-lcm-tpu",
    format_: Annotated[
        Format, typer.Option("--format", help="onnx, the original tool's torchscript, or both.")
    ] = Format.onnx,
    components: Annotated[
        str | None, typer.Option(help="Export only these, comma-separated.")
    ] = None,
    prediction: model_options.Prediction = None,
    zero_terminal_snr: model_options.ZeroTerminalSnr = False,
    allow_unused: Annotated[
        bool, typer.Option("--allow-unused", help="Merge a LoRA although some keys do not fit.")
    ] = False,
) -> None:
    """Export a checkpoint (and LoRAs) to weightless-made ONNX graphs with weights beside them."""
    from converter.adapters.choice import AdapterChoice
    from converter.architecture import controlnet_name
    from converter.downloads.fetch import local_path
    from converter.export import ExportRequest
    from converter.export import export as run
    from sdconv.console import progress_bar

    with progress_bar() as progress:

        def fetched(text: str) -> Path:
            return local_path(text, variant, progress)

        def fetched_adapter(text: str) -> Path:
            return local_path(text, progress=progress)

        parts = {
            "unet": unet,
            "vae": vae,
            "text_encoder": text_encoder,
            "text_encoder_2": text_encoder_2,
            **{controlnet_name(i): text for i, text in enumerate(controlnet or ())},
        }
        request = ExportRequest(
            checkpoint=None if checkpoint is None else fetched(checkpoint),
            output=output,
            adapters=tuple(AdapterChoice.parse(text, fetched_adapter) for text in lora or ()),
            profile=profile,
            batch=batch,
            components=tuple(components.split(",")) if components else None,
            allow_unused=allow_unused,
            parts={part: fetched(text) for part, text in parts.items() if text is not None},
            variant=variant,
            ema=ema,
            controlnet_base=None if controlnet_merge is None else fetched(controlnet_merge),
            prediction=prediction,
            zero_terminal_snr=zero_terminal_snr,
        )
        bundle = run(request, progress)
        if format_ != Format.onnx:
            from converter.torchscript import export_torchscript

            export_torchscript(bundle, progress)
    _report(bundle)


def _report(bundle: Bundle) -> None:
    from sdconv.adapter_summary import adapter_lines, adapter_warnings
    from sdconv.console import err, out
    from sdconv.picture_options import sentence

    for component in bundle.components.values():
        size = component.weights_bytes / 1e6
        out.print(
            f"{bundle.folder / component.graph}: {component.parameters / 1e6:.1f} M parameters, "
            f"{size:.0f} MB",
            highlight=False,
            soft_wrap=True,
        )
    for line in adapter_lines(bundle):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in adapter_warnings(bundle):
        err.print(f"warning: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if bundle.sampling is not None:
        out.print(sentence(bundle.sampling), highlight=False, markup=False, soft_wrap=True)
    out.print(f"bundle: {bundle.folder}", highlight=False, soft_wrap=True)
