"""The verb `generate`: draw a prompt with compiled artifacts, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdconv import picture_options as options

if TYPE_CHECKING:
    from runtime.generate import GenerateRequest


def generate(
    artifacts: options.Artifacts,
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="What to draw.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file.")] = Path("picture.png"),
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="Whose artifacts; a chip's run on its emulator.  [default: the only ones there, "
            "else onnxruntime]",
        ),
    ] = None,
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
    early: options.Early = 0,
    hint: options.Hints = None,
    staged: Annotated[
        Path | None,
        typer.Option(
            help="Load text encoders, denoiser and decoder one after the other, each in a process "
            "of its own, and leave what they hand over in this folder."
        ),
    ] = None,
) -> None:
    """Draw a picture with the artifacts of one target."""
    from runtime.generate import GenerateRequest, usual_target
    from runtime.generate import generate as draw
    from sdconv.console import out, progress_bar

    request = GenerateRequest(
        artifacts=artifacts,
        output=output,
        picture=options.picture_request(
            artifacts,
            bundle,
            prompt,
            negative,
            scheduler,
            steps,
            guidance,
            seed,
            hint,
            noise,
            early=early,
        ),
        target=target or usual_target(artifacts),
        size=size,
        bundle=bundle,
    )
    if staged is not None:
        _draw_staged(request, staged)
        return
    with progress_bar() as progress:
        path = draw(request, progress)
    out.print(f"picture: {path}", highlight=False, markup=False, soft_wrap=True)


def _draw_staged(request: GenerateRequest, folder: Path) -> None:
    """Draw stage by stage and tell what each took."""
    from runtime.generate import size_of
    from runtime.staged import StagedRequest, draw_staged
    from sdconv.console import out, progress_bar
    from targets.manifest import Manifest

    staged = StagedRequest(
        request.artifacts,
        folder,
        request.output,
        request.picture,
        request.target,
        size_of(request, Manifest.load(request.artifacts)),
        request.bundle,
    )
    with progress_bar() as progress:
        reports = draw_staged(staged, progress)
    for report in reports:
        out.print(
            f"{report.stage}: {report.seconds:.1f} s, at most {report.peak / 1e6:.0f} MB of memory "
            f"({', '.join(report.artifacts)})",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    out.print(f"picture: {request.output}", highlight=False, markup=False, soft_wrap=True)
