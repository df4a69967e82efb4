"""Draw a picture in stages, each in a process of its own, as phones do whose memory is short.

Text encoders, denoiser and decoder are loaded one after the other; between them lie raw files in
one folder, the same that programs on a phone exchange:

    text_encoder.i32             token ids int32 [rows, 77], the negative prompt's first
    encoder_hidden_states.qfp32  [rows, 77, width], and for SDXL text_embeds.qfp32
    latent.qfp32                 [1, 4, h, w], not scaled: the decoder's input is this by the factor
    picture.qfp32                [1, 3, H, W] in about [-1, 1]
"""

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.bundle import Bundle
from converter.components import POOLED, TEXT_ENCODERS
from converter.errors import InputError
from converter.files import read_json, replacing, write_json
from converter.progress import Event, Progress, silent
from converter.raw_tensors import read_raw, write_raw
from converter.sizes import Size
from converter.weights import Array
from runtime.conditioning import CONTEXT
from runtime.network import Network
from runtime.png import png
from runtime.sampling import PictureRequest, Pipeline, to_pixels
from runtime.staging import check_draws, chosen_artifacts, drawing_components, pipeline_of
from runtime.tokenizer import END_TOKEN, tokenize
from targets.base import Artifact, ToolchainError
from targets.manifest import Manifest
from targets.processes import ChildFailedError, run_logged
from targets.registry import get_target

STAGES = ("text", "denoise", "decode")

LATENT, PICTURE = "latent.qfp32", "picture.qfp32"

FIRST_FOR_TEXT = "mnn"
"""Whose text encoders are taken if there are any: on a phone the processor runs them."""


@dataclass(frozen=True)
class StagedRequest:
    """What to draw with whose artifacts; `folder` is where the stages' files go."""

    artifacts: Path
    folder: Path
    output: Path
    picture: PictureRequest
    target: str
    size: Size
    bundle: Path | None = None


@dataclass(frozen=True)
class StageReport:
    """What a stage took: seconds, and the bytes that its processes held at most together."""

    stage: str
    artifacts: Sequence[str]
    seconds: float
    peak: int


def draw_staged(request: StagedRequest, progress: Progress = silent) -> list[StageReport]:
    """Draw a picture stage by stage and write it as a PNG.

    Raises InputError where artifacts are missing or options do not fit, ToolchainError where a
    stage fails.
    """
    manifest = Manifest.load(request.artifacts)
    bundle = manifest.load_bundle(request.bundle)
    check_draws(bundle)
    if request.picture.hints:
        raise InputError("a picture with hints is not drawn in stages: leave --staged out")
    staged_artifacts(
        manifest, bundle, request.target, request.size
    )  # says what is missing before anything runs
    request.folder.mkdir(parents=True, exist_ok=True)
    asked = request.folder / "request.json"
    write_json(asked, _to_json(request))
    reports = []
    for done, stage in enumerate(STAGES):
        progress(Event("draw", done / len(STAGES), stage))
        log = request.folder / f"{stage}.log"
        log.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "runtime.staged", stage, str(asked)]
        try:
            run_logged(argv, log, env=_own_environment())
        except ChildFailedError as e:
            raise ToolchainError(f"stage {stage} failed: {e.line}; full log: {log}") from e
        reports.append(
            StageReport(**read_json(request.folder / f"{stage}.json", "a stage's report"))
        )
    drawn = read_raw(request.folder / PICTURE, (3, request.size.height, request.size.width))
    with replacing(request.output) as work:
        work.write_bytes(png(to_pixels(drawn)))
    progress(Event("draw", 1.0))
    return reports


def run_stage(stage: str, request: StagedRequest) -> None:
    """Run one stage in this process and say what it took."""
    start = time.monotonic()
    manifest = Manifest.load(request.artifacts)
    bundle = manifest.load_bundle(request.bundle)
    mine = {"text": TEXT_ENCODERS, "denoise": ("unet",), "decode": ("vae_decoder",)}[stage]
    every = staged_artifacts(manifest, bundle, request.target, request.size)
    chosen = {name: artifact for name, artifact in every.items() if name in mine}
    with _open(manifest, bundle, request, chosen) as pipeline:
        {"text": _text, "denoise": _denoise, "decode": _decode}[stage](pipeline, request)
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = sum(resource.getrusage(one).ru_maxrss for one in who) << 10
    paths = [artifact.path for artifact in chosen.values()]
    report = StageReport(stage, paths, time.monotonic() - start, peak)
    write_json(request.folder / f"{stage}.json", asdict(report))


def _text(pipeline: Pipeline, request: StagedRequest) -> None:
    picture = request.picture
    rules = pipeline.prompt_rules
    prompts = [*([picture.negative or ""] if picture.guided else []), picture.prompt]
    for name in pipeline.networks:
        tokens = tokenize(prompts, rules.padding.get(name, END_TOKEN), rules.words)
        write_raw(request.folder / f"{name}.i32", tokens)
    for stale in (CONTEXT, POOLED):
        (request.folder / f"{stale}.qfp32").unlink(missing_ok=True)
    for name, values in pipeline.embed(picture).items():
        write_raw(request.folder / f"{name}.qfp32", values)


def _denoise(pipeline: Pipeline, request: StagedRequest) -> None:
    rows = 2 if request.picture.guided else 1
    unet = pipeline.networks["unet"].interface
    width = next(port.shape[-1] for port in unet.inputs if port.name == CONTEXT)
    assert isinstance(width, int)
    embeddings: dict[str, Array] = {}
    embeddings[CONTEXT] = read_raw(request.folder / f"{CONTEXT}.qfp32").reshape(rows, -1, width)
    pooled = request.folder / f"{POOLED}.qfp32"
    if pooled.is_file():
        embeddings[POOLED] = read_raw(pooled).reshape(rows, -1)
    latents = pipeline.denoise(request.picture, embeddings)
    write_raw(request.folder / LATENT, latents[-1])


def _decode(pipeline: Pipeline, request: StagedRequest) -> None:
    (port,) = pipeline.networks["vae_decoder"].interface.inputs
    latent: Array = read_raw(request.folder / LATENT, port.at(1, request.size))
    write_raw(request.folder / PICTURE, pipeline.decode(latent.astype(np.float32)))


def staged_artifacts(
    manifest: Manifest, bundle: Bundle, target: str, size: Size
) -> dict[str, Artifact]:
    """What draws, by component; raises InputError naming what is missing."""
    found = {
        artifact.component: artifact
        for artifact in manifest.artifacts
        if artifact.target == FIRST_FOR_TEXT and artifact.component in TEXT_ENCODERS
    }
    needed = drawing_components(bundle)
    rest = chosen_artifacts(manifest, target, size, [n for n in needed if n not in found])
    return {name: found.get(name) or rest[name] for name in needed}


@contextmanager
def _open(
    manifest: Manifest, bundle: Bundle, request: StagedRequest, chosen: Mapping[str, Artifact]
) -> Iterator[Pipeline]:
    with ExitStack() as stack:
        networks = {
            component: Network(
                stack.enter_context(get_target(artifact.target).open(artifact, manifest.folder)),
                manifest.interfaces[component],
                artifact.batch,
            )
            for component, artifact in chosen.items()
        }
        yield pipeline_of(networks, bundle, request.size)


def _to_json(request: StagedRequest) -> dict[str, Any]:
    given = {
        "artifacts": request.artifacts,
        "folder": request.folder,
        "output": request.output,
        "bundle": request.bundle,
    }
    return {
        **{name: None if path is None else str(path.absolute()) for name, path in given.items()},
        "target": request.target,
        "size": str(request.size),
        "picture": asdict(replace(request.picture, hints=())),
    }


def _from_json(data: Mapping[str, Any]) -> StagedRequest:
    return StagedRequest(
        Path(data["artifacts"]),
        Path(data["folder"]),
        Path(data["output"]),
        PictureRequest(**{**data["picture"], "hints": ()}),
        data["target"],
        Size.parse(data["size"]),
        None if data["bundle"] is None else Path(data["bundle"]),
    )


def _own_environment() -> dict[str, str]:
    """This process's, with the packages that it found."""
    import os

    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths}


def main() -> None:
    """Run the stage that the command line names; errors are told in one line."""
    stage, asked = sys.argv[1:]
    try:
        run_stage(stage, _from_json(read_json(Path(asked), "a request of 'sdconv generate'")))
    except (InputError, ToolchainError) as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
