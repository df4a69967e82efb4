"""What `generate` and `validate` share: whose artifacts, and the options that say what to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from converter.bundle import Bundle
    from runtime.sampling import PictureRequest

Artifacts = Annotated[
    Path, typer.Argument(help="Folder with a manifest.json, made by 'sdconv compile'.")
]
MovedBundle = Annotated[
    Path | None, typer.Option("--bundle", help="Where the bundle is now, if it was moved.")
]
Negative = Annotated[
    str | None,
    typer.Option(
        help='What not to draw; needs a guidance above 1. "" is the empty prompt, which for SDXL '
        "is not the same as none."
    ),
]
# As in `runtime.sampling.PictureRequest`, which takes numpy with it and so is imported late.
SCHEDULER, STEPS, GUIDANCE = "ddim", 20, 7.5
ADVISED = "[default: what the bundle recommends, else {}]"
SchedulerName = Annotated[
    str | None, typer.Option(help=f"ddim, euler, lcm or plms.  {ADVISED.format(SCHEDULER)}")
]
Steps = Annotated[int | None, typer.Option(min=1, help=f"Sampling steps.  {ADVISED.format(STEPS)}")]
Guidance = Annotated[
    float | None,
    typer.Option(min=0, help=f"Classifier-free guidance, 1 is none.  {ADVISED.format(GUIDANCE)}"),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise.")]
Early = Annotated[
    int,
    typer.Option(min=0, help="Leave out so many steps and decode what the picture is taken to be."),
]
Noise = Annotated[
    str | None,
    typer.Option(
        help="Whose generator the noise is from: numpy, libstdc++ (C++ on Linux) or libc++ (on "
        "Android).  [default: that of the profile's consumer, else numpy]"
    ),
]
Hints = Annotated[
    list[str] | None,
    typer.Option(
        "--hint",
        metavar="[COMPONENT=]FILE[:SCALE]",
        help="Picture that a ControlNet follows: edges.png, edges.png:0.8, "
        "controlnet_2=depth.png; may be repeated.",
    ),
]


def picture_request(
    artifacts: Path,
    bundle: Path | None,
    prompt: str,
    negative: str | None,
    scheduler: str | None,
    steps: int | None,
    guidance: float | None,
    seed: int,
    hints: Sequence[str] | None,
    noise: str | None = None,
    early: int = 0,
    *,
    say: bool = True,
) -> PictureRequest:
    """What to draw; see `runtime.advice` for the options that are not given.

    With `say` whose they are is printed. Raises InputError where the artifacts or their bundle
    cannot be read.
    """
    from runtime.hints import HintFile
    from runtime.sampling import PictureRequest
    from targets.manifest import Manifest

    chosen: dict[str, Any] = {"scheduler": scheduler, "steps": steps, "guidance": guidance}
    if None in chosen.values():
        made_from = Manifest.load(artifacts).load_bundle(bundle)
        chosen = advised(made_from, scheduler, steps, guidance, say=say)
    read = tuple(HintFile.parse(hint) for hint in hints or ())
    return PictureRequest(
        prompt, negative, seed=seed, hints=read, noise=noise or "", early=early, **chosen
    )


def advised(
    bundle: Bundle,
    scheduler: str | None,
    steps: int | None,
    guidance: float | None,
    *,
    say: bool = True,
) -> dict[str, Any]:
    """The fields of a `PictureRequest`, filled up as `runtime.advice` says; says whose they are."""
    from runtime.advice import sampling_options
    from sdconv.console import out

    advice = bundle.sampling
    chosen, followed = sampling_options(advice, scheduler=scheduler, steps=steps, guidance=guidance)
    if advice is not None and followed and say:
        out.print(sentence(advice), highlight=False, markup=False, soft_wrap=True)
    return chosen


def sentence(advice: Mapping[str, Any]) -> str:
    """A bundle's recommendation in words."""
    return (
        f"recommended here: scheduler {advice['scheduler']}, {advice['steps']} steps, "
        f"guidance {advice['guidance']:g} ({advice['because']})"
    )
