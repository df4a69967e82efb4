"""Inputs look real, are deterministic, fit the interface, and prove the wiring of every port."""

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline

from converter.errors import InputError
from converter.interface import Interface, Port
from converter.sizes import Size
from converter.weights import Array
from runtime.schedulers import alpha_bar
from validate.base import Case
from validate.drawing import draw
from validate.inputs import Origins, make_case
from validate.prompts import token_rows
from validate.scenes import scenes, stand_ins

START, END = 49406, 49407
LATENT = ("batch", 4, "height/8", "width/8")
UNET = Interface(
    (
        Port("sample", "float32", LATENT),
        Port("timestep", "float32", (1,)),
        Port("encoder_hidden_states", "float32", ("batch", 77, 8)),
        Port("mid_block_additional_residual", "float32", LATENT),
        Port("down_block_additional_residual_0", "float32", LATENT),
    ),
    (Port("noise_pred", "float32", LATENT),),
)
WITHOUT_RESIDUALS = Interface(UNET.inputs[:3], UNET.outputs)
NOTHING = Origins(0.18215, None, None, None)


def cases(component: str, interface: Interface, origins: Origins, batch: int = 1) -> list[Case]:
    shapes = interface.input_shapes(batch, Size(64, 128))
    found = [
        make_case(component, scene, interface, shapes, origins)
        for scene in scenes(component, interface)
    ]
    for case in found:
        for port in interface.inputs:
            assert case.inputs[port.name].shape == shapes[port.name]
            assert case.inputs[port.name].dtype == port.dtype
            assert np.isfinite(case.inputs[port.name]).all()
    return found


def test_prompts_are_real_clip_rows() -> None:
    rows = token_rows(0, (3, 77), 49408)
    assert rows[0][:6].tolist() == [START, 320, 8853, 539, 550, 18376]
    assert (rows[:, 0] == START).all()
    assert (rows[:, -1] == END).all()
    assert (rows[1] != END).sum() == 76
    assert (rows[2][1:] == END).all()


@pytest.mark.parametrize(("vocabulary", "length"), [(1000, 77), (49408, 64)])
def test_token_ids_are_never_wrapped_or_cut(vocabulary: int, length: int) -> None:
    with pytest.raises(InputError, match="do not fit"):
        token_rows(0, (1, length), vocabulary)


@pytest.mark.parametrize(("name", "dtype"), [("tokens", "int32"), ("input_ids", "int64")])
def test_text_encoder_takes_other_prompts_in_every_row(name: str, dtype: str) -> None:
    interface = Interface((Port(name, dtype, ("batch", 77)),), ())
    first = cases("text_encoder", interface, Origins(1, 49408, None, None), batch=2)[0]
    assert (first.inputs[name][0] != first.inputs[name][1]).any()


def test_unet_timesteps_noise_and_residuals() -> None:
    found = {case.name: case.inputs for case in cases("unet", UNET, NOTHING)}
    assert [*found] == ["t501-residuals", "t981", "t501", "t20.5"]
    assert found["t981"]["timestep"] == 981
    residuals = [name for name in found["t20.5"] if "residual" in name]
    assert len(residuals) == 2
    for name in residuals:
        assert not found["t501"][name].any()
        assert found["t501-residuals"][name].std() == pytest.approx(1, rel=0.2)
    one, other = (found["t501-residuals"][name] for name in residuals)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2
    assert [s.name for s in scenes("unet", WITHOUT_RESIDUALS)] == ["t981", "t501", "t20.5"]


def test_noise_follows_the_schedule() -> None:
    """Of the scaled-linear schedule: abar_999 = 0.00466, and sigma_max = 14.61."""
    last = alpha_bar(999)
    assert last == pytest.approx(0.00466, abs=1e-5)
    assert np.sqrt((1 - last) / last) == pytest.approx(14.61, abs=0.01)
    constant = Origins(0.5, None, None, lambda x: np.full((len(x), 4, 16, 8), 8, np.float32))
    found = {case.name: case.inputs["sample"] for case in cases("unet", UNET, constant)}
    # x_0 = 0.5 * 8, so the mean tells how much of it is left.
    assert found["t20.5"].mean() == pytest.approx(4 * np.sqrt(alpha_bar(21)), abs=0.1)
    assert found["t981"].mean() == pytest.approx(4 * np.sqrt(alpha_bar(981)), abs=0.2)


def test_what_the_bundle_can_compute_is_used() -> None:
    seen: list[Array] = []

    def embed(tokens: Array) -> Array:
        seen.append(tokens)
        return np.repeat(tokens[..., None], 8, axis=2) / 49408

    origins = Origins(0.18215, 49408, embed, None)
    found = {case.name: case.inputs for case in cases("unet", UNET, origins, batch=2)}
    assert found["t981"]["encoder_hidden_states"][0, 1, 0] == pytest.approx(320 / 49408)
    assert seen[0].shape == (2, 77)


def test_components_that_do_not_fit_each_other_are_refused() -> None:
    origins = Origins(1, 49408, lambda tokens: np.zeros((*tokens.shape, 9)), None)
    with pytest.raises(InputError, match="do not belong together"):
        cases("unet", UNET, origins)


def test_decoder_takes_unscaled_latents() -> None:
    interface = Interface((Port("latent_sample", "float32", LATENT),), ())
    noise = cases("vae_decoder", interface, NOTHING)[0].inputs["latent_sample"]
    assert noise.std() == pytest.approx(1 / 0.18215, rel=0.1)
    encoded = Origins(0.18215, None, None, lambda x: x[:, [0, 1, 2, 0], ::8, ::8])
    found = cases("vae_decoder", interface, encoded)[0].inputs["latent_sample"]
    assert (found[0, :3] == draw(1, 128, 64)[:, ::8, ::8]).all()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_pictures_fill_the_range_and_differ_in_every_channel_and_direction(index: int) -> None:
    picture = draw(index, 96, 160)
    assert picture.shape == (3, 96, 160)
    assert picture.dtype == np.float32
    assert -1 <= picture.min() < -0.5 < 0.5 < picture.max() <= 1
    others = (picture[[1, 2, 0]], picture[[1, 0, 2]], picture[:, ::-1], picture[:, :, ::-1])
    for other in others:
        assert np.abs(picture - other).mean() > 0.05


def test_cases_are_deterministic() -> None:
    for one, other in zip(cases("unet", UNET, NOTHING), cases("unet", UNET, NOTHING), strict=True):
        for name in one.inputs:
            assert (one.inputs[name] == other.inputs[name]).all()


def test_unknown_ports_and_components_list_the_known() -> None:
    strange = Interface((Port("pixels", "float32", LATENT),), ())
    with pytest.raises(InputError, match="'pixels': known are sample, image"):
        cases("vae_encoder", strange, NOTHING)
    with pytest.raises(InputError, match="text_encoder_2, controlnet, unet, vae_encoder, "):
        scenes("safety_checker", strange)


def test_what_sdxl_and_lcms_are_told_looks_real() -> None:
    ports = (
        Port("text_embeds", "float32", ("batch", 4)),
        Port("time_ids", "float32", ("batch", 6)),
        Port("timestep_cond", "float32", ("batch", 256)),
    )
    pooled = Origins(1, 49408, None, None, lambda tokens: np.full((len(tokens), 4), 3.0))
    found = cases("unet", Interface(ports, ()), pooled, batch=2)[0].inputs
    assert (found["text_embeds"] == 3).all()
    assert found["time_ids"][1].tolist() == [1024, 1024, 0, 0, 1024, 1024]
    # What diffusers' LCM pipeline makes of guidance scale 8.
    embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    wanted = embed(None, torch.tensor([7.0]), embedding_dim=256).numpy()
    assert np.abs(found["timestep_cond"] - wanted).max() < 1e-3
    refiner = Interface((Port("time_ids", "float32", ("batch", 5)),), ())
    assert cases("unet", refiner, NOTHING)[0].inputs["time_ids"][0, -1] == 6


def test_stand_ins_are_named() -> None:
    noise = stand_ins("unet", ["vae_encoder", "text_encoder"], ("text_encoder", "text_encoder_2"))
    assert noise == "text embeddings are unit-variance noise: the bundle has no text_encoder_2"
    assert "the bundle has no text_encoder" in stand_ins("unet", ["unet", "vae_encoder"])
    assert stand_ins("unet", ["unet", "vae_encoder", "text_encoder"]) == ""
    assert stand_ins("text_encoder", ["text_encoder"]) == ""


def test_a_controlnet_is_fed_as_the_unet_is_and_with_edges() -> None:
    latent = ("batch", 4, "height/8", "width/8")
    ports = (
        Port("sample", "float32", latent),
        Port("image", "float32", ("batch", 3, "height", "width")),
        Port("timestep", "float32", (1,)),
    )
    for component in ("controlnet", "controlnet_2"):
        for case in cases(component, Interface(ports, ()), NOTHING):
            edges = case.inputs["image"]
            assert set(np.unique(edges)) == {0, 1}
            assert 0.005 < edges.mean() < 0.7
            assert (edges[:, 0] == edges[:, 2]).all()
