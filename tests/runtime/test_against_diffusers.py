"""Whole pictures against diffusers' own pipelines: same noise, same schedule, same weights.

Every step's latent and the picture must be equal but for float32 rounding, which guidance and
steps multiply. Models are small and random; their drawings are noise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from converter.bundle import Bundle
from converter.errors import InputError
from converter.sizes import Size
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint, write_controlnet
from examples.small_models import MODELS
from runtime import tokenizer
from runtime.hints import HintFile
from runtime.noise import first_latent
from runtime.sampling import Drawing, PictureRequest, Pipeline
from runtime.staging import open_artifacts, open_reference
from sdconv.main import run
from targets.manifest import Manifest
from targets.registry import get_target
from tests.converter import reference_models as references
from validate.references import open_torch_reference

SIZES = (Size(96, 96), Size(128, 64))
NEAR = 1e-4
"""Of the largest value, over all steps."""
TRAINED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
PLAIN = {**TRAINED, "clip_sample": False, "set_alpha_to_one": False}
SCHEDULES: dict[str, Callable[[], Any]] = {
    "euler": lambda: EulerDiscreteScheduler(**TRAINED),
    "ddim": lambda: DDIMScheduler(**PLAIN),
    "lcm": lambda: LCMScheduler(**PLAIN),
}
XL = ("sdxl", "ssd-1b", "segmind-vega", "koala-700m", "koala-1b")
EULER = PictureRequest("a photo of a red cat", scheduler="euler", steps=3, guidance=5.0, seed=3)


@dataclass(frozen=True)
class Exported:
    """A small model: its checkpoint, a ControlNet for it where asked, and the command's bundle."""

    name: str
    checkpoint: Path
    bundle: Bundle
    controlnet: Path | None


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    done: dict[tuple[str, bool], Exported] = {}

    def get(name: str, *, controlled: bool = False) -> Exported:
        if (name, controlled) not in done:
            folder = tmp_path_factory.mktemp(name)
            checkpoint, net = folder / "model.safetensors", folder / "net.safetensors"
            write_checkpoint(checkpoint, MODELS[name])
            words = ["export", "-u", str(checkpoint), "-o", str(folder / "bundle")]
            unet = MODELS[name].unet
            if controlled and unet is not None:
                write_controlnet(net, unet)
                words += ["-c", str(net)]
            assert run([*words, "--profile", "diffusers"]) == 0
            bundle = Bundle.load(folder / "bundle")
            done[name, controlled] = Exported(name, checkpoint, bundle, net if controlled else None)
        return done[name, controlled]

    return get


def words(padding: str | None = None) -> Any:
    """CLIP's tokenizer as diffusers wants it; SDXL's second one pads with token 0, which is "!"."""
    made = tokenizer._tokenizer.__wrapped__()  # not the one that all share: it is changed
    made.model_max_length = 77
    if padding is not None:
        made.pad_token = padding
    return made


def theirs(model: Exported, scheduler: Any) -> Any:
    """Diffusers' pipeline with the file's weights."""
    file = safetensors.torch.load_file(model.checkpoint)
    vae = references.vae(file)
    unet = references.unet(model.name, file)
    if MODELS[model.name].family == "sd15":
        text = references.clip_l(file, layers=2, prefix=None)
        pipe: Any = StableDiffusionPipeline(
            vae=vae,
            text_encoder=text,
            tokenizer=words(),
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    else:
        vae.register_to_config(scaling_factor=0.13025)
        parts = {
            "vae": vae,
            "text_encoder": references.clip_l(
                file, layers=3, prefix="conditioner.embedders.0.transformer."
            ),
            "text_encoder_2": references.open_clip(
                file, "conditioner.embedders.1.model.", layers=3, projected=True
            ),
            "tokenizer": words(),
            "tokenizer_2": words("!"),
            "unet": unet,
            "scheduler": scheduler,
            "add_watermarker": False,
        }
        if model.controlnet is None:
            pipe = StableDiffusionXLPipeline(**parts)
        else:
            net = references.controlnet("sdxl", safetensors.torch.load_file(model.controlnet))
            pipe = StableDiffusionXLControlNetPipeline(**parts, controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wanted(
    model: Exported, request: PictureRequest, size: Size, **options: Any
) -> tuple[list[Array], Array]:
    """What diffusers draws: every step's latent, and the picture [3, H, W] in [0, 1]."""
    latents: list[Array] = []

    def keep(_pipe: Any, _step: int, _timestep: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        latents.append(given["latents"].numpy().copy())
        return {}

    pipe = theirs(model, SCHEDULES[request.scheduler]())
    drawn = pipe(
        request.prompt,
        negative_prompt=request.negative,
        width=size.width,
        height=size.height,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        latents=torch.from_numpy(first_latent(size, request.seed)),
        generator=torch.Generator().manual_seed(request.seed),
        output_type="pt",
        callback_on_step_end=keep,
        **options,
    )
    return latents, drawn.images[0].numpy()


@contextmanager
def torch_draws(model: Exported, size: Size, controlnets: tuple[str, ...]) -> Iterator[Pipeline]:
    with open_reference(model.bundle, size, open_torch_reference, controlnets) as pipeline:
        yield pipeline


def assert_same(mine: Drawing, latents: list[Array], picture: Array) -> None:
    assert len(mine.latents) == len(latents)
    for found, theirs in zip(mine.latents, latents, strict=True):
        assert found.shape == theirs.shape
        assert theirs.std() > 0.1
        assert np.abs(found - theirs).max() <= NEAR * np.abs(theirs).max()
    shown = (mine.picture.clip(-1, 1) + 1) / 2
    assert picture.std() > 0.01
    assert np.abs(shown - picture).max() <= NEAR


def compare(model: Exported, request: PictureRequest, size: Size, **options: Any) -> Drawing:
    with torch_draws(model, size, request.controlnets) as pipeline:
        drawing = pipeline.draw(request)
    assert_same(drawing, *wanted(model, request, size, **options))
    return drawing


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", XL)
def test_sdxl_and_what_was_distilled_from_it(
    exported: Callable[..., Exported], name: str, size: Size
) -> None:
    compare(exported(name), EULER, size)


def test_no_negative_prompt_is_zeros_and_not_the_empty_prompt(
    exported: Callable[..., Exported],
) -> None:
    model = exported("sdxl")
    drawn = [
        compare(model, replace(EULER, negative=negative, scheduler="ddim"), SIZES[1]).picture
        for negative in (None, "", "a dog")
    ]
    assert all(np.abs(a - b).max() > 100 * NEAR for a, b in combinations(drawn, 2))


@pytest.mark.parametrize("name", ["sdxl-lcm", "sd15-lcm"])
def test_a_full_lcm_is_told_the_guidance(exported: Callable[..., Exported], name: str) -> None:
    model = exported(name)
    assert model.bundle.sampling is not None
    advised = {option: model.bundle.sampling[option] for option in ("scheduler", "steps")}
    request = replace(EULER, **advised, guidance=8.0)
    drawn = [
        compare(model, replace(request, guidance=guidance), SIZES[0]).picture
        for guidance in (8.0, 2.0)
    ]
    assert np.abs(drawn[0] - drawn[1]).max() > 100 * NEAR
    refused = pytest.raises(InputError, match="knows no negative prompt: leave --negative out")
    with torch_draws(model, SIZES[0], ()) as pipeline, refused:
        pipeline.draw(replace(request, negative="a dog"))


def test_a_controlnet_of_sdxl_is_told_what_the_unet_is(
    exported: Callable[..., Exported], tmp_path: Path
) -> None:
    size = Size(128, 64)
    hint = tmp_path / "hint.png"
    pixels = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    Image.fromarray(pixels).save(hint)
    request = replace(EULER, hints=(HintFile(hint, scale=0.7),))
    shown = torch.from_numpy(HintFile(hint).read(size).picture[None])
    model = exported("sdxl", controlled=True)
    compare(model, request, size, image=shown, controlnet_conditioning_scale=0.7)


def test_the_commands_draw_the_same(
    exported: Callable[..., Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = exported("sdxl")
    artifacts, picture = tmp_path / "artifacts", tmp_path / "picture.png"
    compiling = ["compile", "-n", str(model.bundle.folder), "-o", str(artifacts), "--no-validate"]
    sizes = ",".join(map(str, SIZES))
    assert run([*compiling, "--target", "onnxruntime", "--sizes", sizes]) == 0
    manifest, target = Manifest.load(artifacts), get_target("onnxruntime")
    for size in SIZES:
        latents, expected = wanted(model, EULER, size)
        with open_artifacts(manifest, model.bundle, target, size) as pipeline:
            assert_same(pipeline.draw(EULER), latents, expected)
        asked = ["generate", str(artifacts), *EULER.command(), "--size", str(size)]
        assert run([*asked, "-o", str(picture)]) == 0
        levels = np.asarray(Image.open(picture), np.float32).transpose(2, 0, 1) / 255
        assert np.abs(levels - expected).max() < 0.6 / 255
    capsys.readouterr()
    assert run(["validate", str(artifacts), *EULER.command()]) == 0
    assert "2 of 2 pictures, " in " ".join(capsys.readouterr().out.split())
