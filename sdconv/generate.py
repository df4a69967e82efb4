"""The verb `generate`: draw a prompt with compiled artifacts, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from sdconv import picture_options as options


def generate(
    artifacts: options.Artifacts,
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="What to draw.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file.")] = Path("picture.png"),
    target: Annotated[
        str, typer.Option("--target", "-t", help="Whose artifacts; a chip's run on its emulator.")
    ] = "onnxruntime",
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT.  [default: the first compiled]")
    ] = None,
    bundle: options.MovedBundle = None,
    negative: options.Negative = None,
    scheduler: options.SchedulerName = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    noise: options.Noise = None,
    hint: options.Hints = None,
) -> None:
    """Draw a picture with the artifacts of one target."""
    from runtime.generate import GenerateRequest
    from runtime.generate import generate as draw
    from sdconv.console import out, progress_bar

    request = GenerateRequest(
        artifacts=artifacts,
        output=output,
        picture=options.picture_request(
            artifacts, bundle, prompt, negative, scheduler, steps, guidance, seed, hint, noise
        ),
        target=target,
        size=size,
        bundle=bundle,
    )
    with progress_bar() as progress:
        path = draw(request, progress)
    out.print(f"picture: {path}", highlight=False, markup=False, soft_wrap=True)
