"""What `generate` and `validate` share: whose artifacts, and the options that say what to draw."""

from pathlib import Path
from typing import Annotated

import typer

Artifacts = Annotated[
    Path, typer.Argument(help="Folder with a manifest.json, made by 'sdconv compile'.")
]
MovedBundle = Annotated[
    Path | None, typer.Option("--bundle", help="Where the bundle is now, if it was moved.")
]
Negative = Annotated[str, typer.Option(help="What not to draw; needs a guidance above 1.")]
SchedulerName = Annotated[str, typer.Option(help="ddim, euler or lcm.")]
Steps = Annotated[int, typer.Option(min=1, help="Sampling steps; 4 with an LCM-LoRA and lcm.")]
Guidance = Annotated[
    float, typer.Option(min=0, help="Classifier-free guidance; 1 is none (for lcm).")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise.")]

# As in `runtime.sampling.PictureRequest`, which takes numpy with it and so is imported late.
SCHEDULER, STEPS, GUIDANCE = "ddim", 20, 7.5
