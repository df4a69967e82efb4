"""The try-it box: a prompt drawn with the artifacts of a job, and how long that will take here.

drawings/<n>/drawing.json   what was asked for
drawings/<n>/picture.png    what came of it; state and progress lie beside it as in any run
"""

import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from converter.architecture import CONTROLNET
from converter.bundle import Bundle
from converter.errors import InputError
from converter.files import link_or_copy, read_json, write_json
from converter.sizes import Size
from runtime.advice import sampling_options
from runtime.generate import GenerateRequest, generate
from runtime.hints import HintFile
from runtime.latency import runs_per_picture
from runtime.sampling import PictureRequest
from runtime.schedulers import SCHEDULERS
from runtime.staging import check_draws, chosen_artifacts, drawing_components
from sdconv.page.jobs import Job
from sdconv.page.limits import Limits
from sdconv.page.requests import ARTIFACTS
from sdconv.page.run_folder import UNFINISHED, Outcome, RunFolder, StepProgress
from sdconv.page.workspace import Workspace
from targets.manifest import Manifest
from targets.registry import get_target

DRAWING, PICTURE, DRAWINGS = "drawing.json", "picture.png", "drawings"
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
LARGEST_PICTURE = 40_000_000
"""Pixels."""
MOST_STEPS = 150
KEPT = 12
"""Pictures that are kept of a job; older ones make room."""


@dataclass(frozen=True)
class Wish:
    """What to draw with the artifacts of `target` at `size`. None: as the model wants it.

    `hint` is the name of a picture in the drawing's own folder, which the ControlNet follows.
    """

    prompt: str
    target: str
    size: str
    negative: str = ""
    scheduler: str = ""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    hint: str = ""
    strength: float = 1.0

    def check(self) -> None:
        """Raise InputError for what no drawing takes."""
        if not self.prompt.strip():
            raise InputError("no prompt: write what is to be drawn")
        if self.scheduler not in ("", *SCHEDULERS):
            raise InputError(
                f"unknown scheduler {self.scheduler!r}: choose one of {', '.join(SCHEDULERS)}"
            )
        if self.steps is not None and not 1 <= self.steps <= MOST_STEPS:
            raise InputError(f"{self.steps} steps: choose 1 to {MOST_STEPS}")
        if self.guidance is not None and not 0 <= self.guidance <= 50:
            raise InputError(f"guidance {self.guidance:g}: choose 0 to 50")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: choose 0 to {2**32 - 1}")

    def picture(self, bundle: Bundle, folder: Path) -> PictureRequest:
        """The request of the command line, filled up as the bundle recommends."""
        chosen, _ = sampling_options(
            bundle.sampling,
            scheduler=self.scheduler or None,
            steps=self.steps,
            guidance=self.guidance,
        )
        hints = (HintFile(folder / self.hint, scale=self.strength),) if self.hint else ()
        negative = self.negative or None
        return PictureRequest(self.prompt, negative, seed=self.seed, hints=hints, **chosen)


@dataclass(frozen=True)
class Easel:
    """What a job can draw with: its manifest and bundle, and the sizes of each target."""

    manifest: Manifest
    bundle: Bundle
    sizes: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, job: Job) -> "Easel":
        """Raises InputError for a job whose artifacts do not draw, saying why."""
        manifest = Manifest.load(job.folder / ARTIFACTS)
        bundle = manifest.load_bundle()
        check_draws(bundle)
        needed = drawing_components(bundle)
        sizes: dict[str, list[str]] = {}
        lacking: InputError | None = None
        for target, size in dict.fromkeys((a.target, a.size) for a in manifest.artifacts):
            if size is None:
                continue
            try:
                chosen_artifacts(manifest, target, size, needed)
            except InputError as e:
                lacking = e
            else:
                sizes.setdefault(target, []).append(str(size))
        if not sizes:
            raise lacking or InputError("no artifact here draws pictures")
        return cls(manifest, bundle, {target: tuple(found) for target, found in sizes.items()})

    @property
    def follows(self) -> bool:
        """Whether there is a ControlNet, which can follow a picture."""
        return CONTROLNET in self.bundle.components

    def seconds(self, wish: Wish, folder: Path) -> float | None:
        """What a picture takes on a chip's emulator; None where it runs on this machine itself.

        Raises InputError for a wish that does not fit, ToolchainError without the emulator.
        """
        wish.check()
        if wish.size not in self.sizes.get(wish.target, ()):
            raise InputError(f"nothing here draws {wish.size} for {wish.target!r}: choose another")
        target = get_target(wish.target)
        target.check_ready()
        request = wish.picture(self.bundle, folder)
        components = drawing_components(self.bundle, request.controlnets)
        size = Size.parse(wish.size)
        artifacts = chosen_artifacts(self.manifest, wish.target, size, components)
        once = {c: target.run_seconds(a, self.manifest.folder) for c, a in artifacts.items()}
        if all(seconds is None for seconds in once.values()):
            return None
        runs = runs_per_picture(self.bundle, artifacts, request)
        return sum(runs[component] * (seconds or 0.0) for component, seconds in once.items())


@dataclass(frozen=True)
class Drawing:
    """One picture that was asked for, and the run that draws it."""

    run: RunFolder
    wish: Wish

    @property
    def picture(self) -> Path:
        """Where it is drawn."""
        return self.run.path / PICTURE


def new_drawing(job: Job, wish: Wish, limits: Limits, hint: Path | None = None) -> Drawing:
    """Make the folder of a drawing of a judged job.

    Raises InputError, also for what would take an emulator too long, or ToolchainError.
    """
    if job.outcome is None or job.outcome.kind != "judged":
        raise InputError("there is nothing to draw with: the conversion is not finished")
    seconds = Easel.of(job).seconds(wish, job.folder)
    if seconds is not None and seconds > limits.draw_minutes * 60:
        raise InputError(
            f"this picture would take the emulator about {seconds / 60:.0f} minutes, and "
            f"{limits.draw_minutes:g} are given: choose fewer steps, a smaller size, or a target "
            "that runs on this machine"
        )
    for old in drawings(job)[KEPT - 1 :]:
        if old.run.state().state not in UNFINISHED:
            shutil.rmtree(old.run.path, ignore_errors=True)
    newest = max((int(d.run.path.name) for d in drawings(job)), default=0)
    folder = job.folder / DRAWINGS / str(newest + 1)
    folder.mkdir(parents=True)
    if hint is not None:
        kept = f"hint{hint.suffix.lower()}"
        link_or_copy(hint, folder / kept)
        wish = replace(wish, hint=kept)
    write_json(folder / DRAWING, asdict(wish))
    return Drawing(RunFolder(folder), wish)


def checked_picture(path: Path) -> Path:
    """The path of a picture; raises InputError for what is none by its content, or too large."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError, UnidentifiedImageError) as e:
        raise InputError(
            f"{path.name}: no picture that can be read: give a {', '.join(PICTURE_FORMATS)}"
        ) from e
    if width * height > LARGEST_PICTURE:
        raise InputError(
            f"{path.name}: {width}x{height} is too large: at most {LARGEST_PICTURE} pixels"
        )
    return path


def drawings(job: Job) -> list[Drawing]:
    """The pictures of a job, the newest first."""
    found = []
    for record in (job.folder / DRAWINGS).glob(f"*/{DRAWING}"):
        with suppress(InputError, TypeError, ValueError):
            wish = Wish(**read_json(record, "what is to be drawn"))
            found.append((int(record.parent.name), Drawing(RunFolder(record.parent), wish)))
    return [drawing for _, drawing in sorted(found, key=lambda pair: -pair[0])]


def run_drawing(
    workspace: Workspace, run: RunFolder, limits: Limits, progress: StepProgress
) -> Outcome:
    """Draw; raises InputError or ToolchainError."""
    del workspace, limits
    wish = Wish(**read_json(run.path / DRAWING, "what is to be drawn"))
    artifacts = run.path.parents[1] / ARTIFACTS
    bundle = Manifest.load(artifacts).load_bundle()
    request = GenerateRequest(
        artifacts=artifacts,
        output=run.path / PICTURE,
        picture=wish.picture(bundle, run.path),
        target=wish.target,
        size=wish.size,
    )
    generate(request, partial(progress, "draw"))
    return Outcome("drawn", request.picture.sentence)


def command(wish: Wish) -> str:
    """The command line that draws the same."""
    hints = (HintFile(Path(wish.hint), scale=wish.strength),) if wish.hint else ()
    given = {"scheduler": wish.scheduler, "steps": wish.steps, "guidance": wish.guidance}
    words = ["sdconv", "generate", ARTIFACTS, "--prompt", wish.prompt, "--target", wish.target]
    words += ["--size", wish.size]
    for option, value in {"negative": wish.negative, **given, "seed": wish.seed}.items():
        words += [f"--{option}", str(value)] if value else []
    for hint in hints:
        words += ["--hint", str(hint)]
    return shlex.join(words)
