"""Our sampling loop against MNN's diffusion engine: the same picture, to the last pixel.

The pictures in `engine_pictures/` were drawn by the engine itself (3.6.1, compiled from its source
on x86-64 Linux) with three small networks in the places of text encoder, UNet and VAE decoder,
which are written here in numpy. What is left is all the engine's: tokens and padding, noise, PLMS,
guidance, scaling and rounding. A cell of the latent became 8x8 equal pixels, of which one is kept.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.errors import InputError
from converter.interface import Interface, Port
from converter.profiles import MNN
from converter.sizes import Size
from converter.weights import Array
from runtime.conditioning import PromptRules
from runtime.network import Network
from runtime.noise import first_latent
from runtime.sampling import Drawing, PictureRequest, Pipeline
from targets.base import Runner

PICTURES = Path(__file__).with_name("engine_pictures")
PROMPT = "a red circle on a blue background"
LATENT = ("batch", 4, "height/8", "width/8")
WIDTH = 8

MIX = np.array(
    [[0.1, 0.02, -0.03, 0.04], [-0.02, 0.1, 0.03, 0.01], [0.01, -0.02, 0.05, 0.1]], np.float32
)
SHIFT = np.array([0.1, -0.1, 0], np.float32)[:, None, None]


class StandIn(Runner):
    def __init__(self, compute: Callable[..., dict[str, Array]]) -> None:
        self._compute = compute

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._compute(**inputs)


def encode(input_ids: Array) -> dict[str, Array]:
    state = np.repeat((input_ids.astype(np.float32) / np.float32(49408))[..., None], WIDTH, axis=2)
    return {"last_hidden_state": state, "pooler_output": state.max(axis=1)}


def denoise(sample: Array, timestep: Array, encoder_hidden_states: Array) -> dict[str, Array]:
    mean = encoder_hidden_states.mean(axis=(1, 2), dtype=np.float32)[:, None, None, None]
    wave = np.sin(sample * np.float32(3) + timestep.astype(np.float32) * np.float32(0.001))
    return {
        "out_sample": sample * np.float32(0.8) + wave * np.float32(0.3) + mean * np.float32(0.5)
    }


def decode(latent_sample: Array) -> dict[str, Array]:
    mixed = np.einsum("oc,nchw->nohw", MIX, latent_sample) + SHIFT
    return {"sample": mixed.repeat(8, axis=2).repeat(8, axis=3)}


def port(name: str, *shape: int | str, dtype: str = "float32") -> Port:
    return Port(name, dtype, shape)


@pytest.fixture
def pipeline() -> Pipeline:
    """As `runtime.staging` makes it for the profile."""
    state = port("last_hidden_state", "batch", 77, WIDTH)
    encoder = Interface(
        (port("input_ids", "batch", 77, dtype="int32"),),
        (state, port("pooler_output", "batch", WIDTH)),
    )
    text = port("encoder_hidden_states", "batch", 77, WIDTH)
    timestep = port("timestep", 1, dtype="int32")
    unet = Interface((port("sample", *LATENT), timestep, text), (port("out_sample", *LATENT),))
    picture = port("sample", "batch", 3, "height", "width")
    decoder = Interface((port("latent_sample", *LATENT),), (picture,))
    assert MNN.sampling is not None
    return Pipeline(
        {
            "text_encoder": Network(StandIn(encode), encoder, MNN.batch_of("text_encoder", 2)),
            "unet": Network(StandIn(denoise), unet, MNN.batch_of("unet", 2)),
            "vae_decoder": Network(StandIn(decode), decoder, MNN.batch_of("vae_decoder", 2)),
        },
        Size(512, 512),
        0.18215,
        prompt_rules=PromptRules(MNN.padding),
        noise=MNN.sampling.noise,
    )


def drawn(pipeline: Pipeline, seed: int, steps: int, noise: str = "") -> Drawing:
    request = PictureRequest(PROMPT, scheduler="plms", steps=steps, seed=seed, noise=noise)
    return pipeline.draw(request)


@pytest.mark.parametrize(("seed", "steps"), [(42, 7), (7, 3)])
def test_the_picture_is_the_engine_s(seed: int, steps: int, pipeline: Pipeline) -> None:
    with Image.open(PICTURES / f"seed-{seed}-steps-{steps}.png") as image:
        theirs = np.asarray(image.convert("RGB"))
    mine = drawn(pipeline, seed, steps).pixels[::8, ::8]
    assert np.array_equal(mine, theirs)
    assert theirs.std() > 50  # it is a picture of something


def test_on_android_the_noise_is_another(pipeline: Pipeline) -> None:
    """As recorded from programs compiled against both libraries, seed 42."""
    first = {"libstdc++": [1.2219213, -0.51696414], "libc++": [-0.51696414, 1.2219213]}
    for noise, values in first.items():
        found = first_latent(Size(512, 512), 42, noise).reshape(-1)
        assert np.allclose(found[:2], values, atol=1e-6)
        assert abs(float(found.mean())) < 0.03
        assert abs(float(found.std()) - 1) < 0.03
    here, there = (drawn(pipeline, 42, 3, noise=noise).picture for noise in first)
    assert not np.allclose(here, there, atol=0.1)


def test_noise_that_is_none_and_seeds_beyond_it_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown noise 'cuda': choose one of numpy, libstdc\+\+"):
        first_latent(Size(64, 64), 0, "cuda")
    with pytest.raises(InputError, match="this noise takes 0 to 4294967295"):
        first_latent(Size(64, 64), 2**32, "libc++")


def test_the_engine_makes_at_most_fifty_steps(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match="scheduler plms takes 1 to 50"):
        drawn(pipeline, 0, 51)
