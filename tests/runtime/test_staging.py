"""Models that draw from a prompt alone, and those that are refused by name."""

from pathlib import Path

import pytest

from converter.architecture import Architecture
from converter.bundle import Bundle, BundleComponent
from converter.errors import InputError
from converter.interface import Interface, Port
from converter.profiles import DIFFUSERS
from examples.small_models import MODELS
from runtime.staging import check_draws, drawing_components


def bundle(architecture: Architecture, *more: Port) -> Bundle:
    """A record of one UNet, without files."""
    ports = DIFFUSERS.interface("unet", architecture)
    ports = Interface((*ports.inputs, *more), ports.outputs)
    unet = BundleComponent("unet", "", "", ports, "", "", 0, 0, "")
    json, family = architecture.to_json(), architecture.family
    return Bundle(Path("b"), family, json, "diffusers", 1, "epsilon", {"unet": unet})


DRAWING = ("sd15", "sd15-lcm", "bk-sdm-tiny", "sd2", "sdxl", "sdxl-lcm", "ssd-1b", "koala-700m")


@pytest.mark.parametrize("name", DRAWING)
def test_models_that_need_no_more_than_a_prompt_draw(name: str) -> None:
    check_draws(bundle(MODELS[name]))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("sd15-inpaint", "an inpaint UNet fills in"),
        ("sd2-inpaint", "an inpaint UNet fills in"),
        ("sdxl-inpaint", "an inpaint UNet fills in"),
        ("sdxl-pix2pix", "an instruct-pix2pix UNet edits a picture"),
        ("sdxl-refiner", "the SDXL refiner goes over a picture that SDXL has begun"),
    ],
)
def test_models_that_need_a_picture_are_refused_by_name(name: str, what: str) -> None:
    with pytest.raises(InputError, match=f"{what}.*draw with another bundle, .* without --prompt"):
        check_draws(bundle(MODELS[name]))


def test_what_nobody_could_feed_is_refused() -> None:
    with pytest.raises(InputError, match="this sd15 UNet also takes class_labels: draw with"):
        check_draws(bundle(MODELS["sd15"], Port("class_labels", "float32", ("batch",))))


def test_a_hint_needs_its_controlnet() -> None:
    with pytest.raises(InputError, match="no controlnet_2, for which a hint is given"):
        check_draws(bundle(MODELS["sdxl"]), ["controlnet_2"])


def test_every_text_encoder_of_the_family_draws() -> None:
    assert drawing_components(bundle(MODELS["sd15"])) == ("text_encoder", "unet", "vae_decoder")
    assert drawing_components(bundle(MODELS["sdxl"]), ["controlnet"]) == (
        "text_encoder", "text_encoder_2", "unet", "vae_decoder", "controlnet",
    )  # fmt: skip
