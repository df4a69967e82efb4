"""The options that tell which model is meant, shared by the verbs that read one.

A file is a path, or an address that is fetched first (`converter.downloads.addresses`).
"""

from typing import Annotated

import typer

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "-u",
        "--checkpoint",
        help="Checkpoint: a file, a diffusers folder, an https:// or hf: address.",
    ),
]
UNet = Annotated[
    str | None, typer.Option("--unet", help="UNet to use instead of the checkpoint's.")
]
Vae = Annotated[str | None, typer.Option("--vae", help="VAE to use instead of the checkpoint's.")]
TextEncoder = Annotated[
    str | None,
    typer.Option("--text-encoder", help="Text encoder to use instead of the checkpoint's."),
]
TextEncoder2 = Annotated[
    str | None, typer.Option("--text-encoder-2", help="The same for SDXL's second one.")
]
ControlNets = Annotated[
    list[str] | None,
    typer.Option(
        "-c", "--controlnet", help="ControlNet to export beside it; may be given several times."
    ),
]
ControlNetMerge = Annotated[
    str | None,
    typer.Option(
        "--controlnet-merge",
        metavar="BASE",
        help="Carry the ControlNets over from BASE, the checkpoint that they were trained beside, "
        "to this one.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option("--variant", help="Which files of a diffusers folder, for example fp16."),
]
Ema = Annotated[bool, typer.Option("--ema", help="Take the EMA copies of the UNet in the file.")]
Prediction = Annotated[
    str | None,
    typer.Option(
        "--prediction",
        help="What the UNet predicts, epsilon or v_prediction, if the file does not tell.",
    ),
]
ZeroTerminalSnr = Annotated[
    bool, typer.Option("--zero-terminal-snr", help="It was trained down to pure noise.")
]
