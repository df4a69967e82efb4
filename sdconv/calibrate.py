"""The verb `calibrate`: draw with a bundle and keep what every component is fed, for INT8."""

from pathlib import Path
from typing import Annotated

import typer

from sdconv import picture_options as options


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder made by 'sdconv export'.")],
    sizes: Annotated[str, typer.Option(help="Picture sizes WIDTHxHEIGHT, comma-separated.")],
    prompt: Annotated[
        list[str] | None, typer.Option("-p", "--prompt", help="What to draw; may be repeated.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt on every line.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of calibration data.")
    ] = Path("calibration"),
    batch: Annotated[int | None, typer.Option("-b", "--batch", help="UNet batch.")] = None,
    negative: options.Negative = None,
    scheduler: options.SchedulerName = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
) -> None:
    """Draw with the fp32 reference, and keep what every component is fed on the way.

    'sdconv compile --precision unet=int8-mixed --calibration FOLDER' takes the ranges of INT8 from
    it. Without prompts, those of the test inputs are drawn.
    """
    from converter.bundle import Bundle
    from converter.sizes import parse_sizes
    from runtime.calibration import CalibrationRequest
    from runtime.calibration import calibrate as record
    from runtime.sampling import PictureRequest
    from sdconv.console import out, progress_bar

    chosen = options.advised(Bundle.load(bundle), scheduler, steps, guidance)
    request = CalibrationRequest(
        bundle=bundle,
        prompts=_prompts(prompt, prompts),
        sizes=parse_sizes(sizes),
        sampling=PictureRequest("", negative, seed=seed, **chosen),
        output=output,
        batch=batch,
    )
    with progress_bar() as progress:
        entries = record(request, progress)
    for entry in entries:
        line = f"{entry.path}: {'reused' if entry.reused else 'made'} ({entry.why})"
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _prompts(given: list[str] | None, file: Path | None) -> tuple[str, ...]:
    """The prompts of both options; without any, those of the test inputs."""
    from converter.errors import InputError
    from validate.prompts import PROMPTS

    read: list[str] = []
    if file is not None:
        try:
            read = [line.strip() for line in file.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"{file}: cannot be read as text ({e}): check the path") from e
        if not read:
            raise InputError(f"{file}: no prompt in it: write one on every line")
    return (*(given or ()), *read) or tuple(filter(None, PROMPTS))
