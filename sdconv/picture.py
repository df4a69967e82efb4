"""The verb `picture`: a raw tensor that a device drew, as a PNG."""

from pathlib import Path
from typing import Annotated

import typer


def picture(
    tensor: Annotated[Path, typer.Argument(help="Raw tensor: FILE.qfp32 or FILE.qfp16.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file.")] = Path("picture.png"),
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT.  [default: a square]")] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Colours of a pixel lie together.")
    ] = False,
) -> None:
    """Turn a VAE decoder's output, [1, 3, H, W] in [-1, 1], into a picture."""
    from converter.files import replacing
    from runtime.png import png
    from runtime.raw_picture import read_picture
    from runtime.sampling import to_pixels
    from sdconv.console import out

    drawn = read_picture(tensor, size, channels_last=channels_last)
    with replacing(output) as work:
        work.write_bytes(png(to_pixels(drawn)))
    out.print(f"picture: {output}", highlight=False, markup=False, soft_wrap=True)
