from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from converter.errors import InputError
from converter.interface import Interface, Port
from converter.sizes import Size
from converter.weights import Array
from runtime.hints import Hint
from runtime.network import Network
from runtime.noise import first_latent
from runtime.sampling import PictureRequest, Pipeline, to_pixels
from targets.base import Runner

SIZE = Size(16, 8)
LATENT = ("batch", 4, "height/8", "width/8")
TEXT = Interface(
    (Port("tokens", "int32", ("batch", 77)),), (Port("hidden", "float32", ("batch", 77, 2)),)
)
UNET = Interface(
    (
        Port("sample", "float32", LATENT),
        Port("timestep", "float32", (1,)),
        Port("encoder_hidden_states", "float32", ("batch", 77, 2)),
        Port("mid", "float32", ("batch", 3, "height/8", "width/8")),
    ),
    (Port("noise", "float32", LATENT),),
)
DECODER = Interface(
    (Port("latent", "float32", LATENT),), (Port("image", "float32", ("batch", 3, 8, 16)),)
)
CONTROL = Interface(
    (
        UNET.inputs[0],
        Port("encoder_hidden_states", "float32", ("batch", 77, 2)),
        Port("image", "float32", ("batch", 3, "height", "width")),
        UNET.inputs[1],
    ),
    (UNET.inputs[3],),
)


@dataclass
class Fake(Runner):
    """Computes with numpy, and remembers what it was given."""

    compute: Callable[[Mapping[str, Array]], dict[str, Array]]
    seen: list[Mapping[str, Array]] = field(default_factory=list)

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.seen.append(inputs)
        return self.compute(inputs)


def embed(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The third token: it tells prompts apart."""
    tokens = inputs["tokens"].astype(np.float32)
    return {"hidden": np.repeat(tokens[:, :, None], 2, axis=2)}


def decode(inputs: Mapping[str, Array]) -> dict[str, Array]:
    grown = inputs["latent"][:, :3].repeat(8, axis=2).repeat(8, axis=3)
    return {"image": grown}


def word(context: Array) -> Array:
    """The second word's token of every row."""
    return context[:, 2, 0]


def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {
        "noise": np.zeros_like(inputs["sample"])
        + word(inputs["encoder_hidden_states"])[:, None, None, None]
    }


def pipeline(unet: Fake, batch: int | None = 1) -> Pipeline:
    networks = {
        "text_encoder": Network(Fake(embed), TEXT, batch),
        "unet": Network(unet, UNET, batch),
        "vae_decoder": Network(Fake(decode), DECODER, batch),
    }
    return Pipeline(networks, SIZE, scaling_factor=0.5)


def test_rows_are_run_in_parts_of_the_compiled_batch() -> None:
    runner = Fake(decode)
    latents = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones((3, 4, 1, 2))
    (pictures,) = Network(runner, DECODER, batch=2)(latents)
    assert [len(given["latent"]) for given in runner.seen] == [2, 2]
    assert pictures[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert all(given["latent"].dtype == np.float32 for given in runner.seen)


@pytest.mark.parametrize("batch", [1, 2, None])
def test_guidance_leads_from_the_negative_prompt_to_the_prompt(batch: int | None) -> None:
    unet = Fake(predict)
    request = PictureRequest("a cat", "a dog", steps=1, guidance=3.0)
    drawing = pipeline(unet, batch).draw(request)
    unguided = [
        pipeline(Fake(predict)).draw(PictureRequest(p, steps=1, guidance=1.0)).latents[0]
        for p in ("a dog", "a cat")
    ]
    expected = unguided[0] + 3.0 * (unguided[1] - unguided[0])
    assert np.allclose(drawing.latents[0], expected, rtol=1e-4)
    assert len(unet.seen) == (2 if batch == 1 else 1)


def test_without_guidance_the_unet_runs_once_a_step() -> None:
    unet = Fake(predict)
    pipeline(unet).draw(PictureRequest("a cat", scheduler="lcm", steps=4, guidance=1.0))
    assert [given["timestep"].tolist() for given in unet.seen] == [[999], [759], [499], [259]]
    assert {word(given["encoder_hidden_states"]).item() for given in unet.seen} == {2368}  # "cat"


def test_the_vae_gets_the_latent_without_the_scale() -> None:
    drawing = pipeline(Fake(predict)).draw(PictureRequest("", steps=1, guidance=1.0))
    assert np.allclose(drawing.picture[:, 0, 0], drawing.latents[-1][0, :3, 0, 0] / 0.5)


def test_ports_without_a_controlnet_get_zeros() -> None:
    unet = Fake(predict)
    pipeline(unet).draw(PictureRequest("", steps=1))
    assert unet.seen[0]["mid"].shape == (1, 3, 1, 2) and not unet.seen[0]["mid"].any()


def test_a_controlnet_feeds_the_ports() -> None:
    def control(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"mid": np.full((len(inputs["sample"]), 3, 1, 2), inputs["image"].mean())}

    unet = Fake(predict)
    plain = pipeline(unet)
    hint = Hint(np.full((3, 8, 16), 0.25, np.float32))
    with pytest.raises(InputError, match=r"a hint for controlnet, .* --controlnet FILE"):
        plain.draw(PictureRequest("", steps=1), [hint])
    net = Network(Fake(control), CONTROL, batch=1)
    nets = {"controlnet": net, "controlnet_2": net}
    with_nets = Pipeline({**plain.networks, **nets}, SIZE, 0.5)
    with_nets.draw(PictureRequest("", steps=1), [hint])
    assert (unet.seen[-1]["mid"] == 0.25).all()
    second = Hint(hint.picture * 2, "controlnet_2", scale=0.5)
    with_nets.draw(PictureRequest("", steps=1), [hint, second])
    assert (unet.seen[-1]["mid"] == 0.5).all()


def test_the_seed_decides() -> None:
    first, again, other = (first_latent(SIZE, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (1, 4, 1, 2) and first.dtype == np.float32


def test_steps_are_told_as_they_are_done() -> None:
    told: list[int] = []
    pipeline(Fake(predict)).draw(PictureRequest("", steps=3), on_step=told.append)
    assert told == [1, 2, 3]


def test_pixels() -> None:
    picture = np.array([-2.0, -1.0, 0.0, 1.0, np.nan, np.inf], np.float32)
    levels = to_pixels(np.broadcast_to(picture, (3, 1, 6)))
    assert levels[0, :, 0].tolist() == [0, 0, 128, 255, 0, 255]


def test_a_request_is_its_command_line() -> None:
    request = PictureRequest("a cat", negative="a dog", scheduler="euler", steps=4, guidance=2.5)
    assert request.command() == [
        "--prompt", "a cat", "--negative", "a dog", "--scheduler", "euler",
        "--steps", "4", "--guidance", "2.5",
    ]  # fmt: skip
    assert PictureRequest("a cat").command() == ["--prompt", "a cat"]
