"""Draw one picture from a folder of artifacts into a PNG file. For the verb and the page."""

from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError
from converter.files import replacing
from converter.progress import Event, Progress, silent
from converter.sizes import Size
from runtime.png import png
from runtime.sampling import PictureRequest
from runtime.staging import open_artifacts
from runtime.tokenizer import overflow
from targets.manifest import Manifest
from targets.registry import get_target


@dataclass(frozen=True)
class GenerateRequest:
    """What to draw with whose artifacts. `size` None: the first that the target has."""

    artifacts: Path
    output: Path
    picture: PictureRequest
    target: str = "onnxruntime"
    size: str | None = None
    bundle: Path | None = None


def generate(request: GenerateRequest, progress: Progress = silent) -> Path:
    """Draw and write the PNG; return its path.

    Raises InputError where artifacts are missing or options do not fit, ToolchainError where a
    chip's emulator is not installed or fails.
    """
    manifest = Manifest.load(request.artifacts)
    bundle = manifest.load_bundle(request.bundle)
    size = size_of(request, manifest)
    target = get_target(request.target)
    target.check_ready()
    steps = request.picture.steps
    cut = overflow(request.picture.prompt, bundle.words)
    note = f'the prompt is longer than 77 tokens; not used: "{cut}"' if cut else ""
    progress(Event("draw", 0, note))
    with open_artifacts(manifest, bundle, target, size, request.picture.controlnets) as pipeline:
        drawing = pipeline.draw(
            request.picture, on_step=lambda done: progress(Event("draw", done / (steps + 1)))
        )
    with replacing(request.output) as work:
        work.write_bytes(png(drawing.pixels))
    progress(Event("draw", 1))
    return request.output


def usual_target(artifacts: Path) -> str:
    """Whose artifacts to draw with when nobody says: the only ones there, else onnxruntime's."""
    targets = {artifact.target for artifact in Manifest.load(artifacts).artifacts}
    return targets.pop() if len(targets) == 1 else "onnxruntime"


def size_of(request: GenerateRequest, manifest: Manifest) -> Size:
    """The size that is asked for, else the first; raises InputError where nothing draws."""
    if request.size is not None:
        return Size.parse(request.size)
    sizes = [a.size for a in manifest.artifacts if a.target == request.target and a.size]
    if not sizes:
        raise InputError(
            f"{manifest.folder}: nothing for target {request.target!r} that draws: compile for it, "
            f"or choose one of {', '.join({a.target: '' for a in manifest.artifacts})}"
        )
    return sizes[0]
