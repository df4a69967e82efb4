"""A picture's time is that of its sampling loop's runs; the defaults are those of the verbs."""

from pathlib import Path

import pytest

from converter.architecture import Architecture
from converter.bundle import Bundle, BundleComponent
from converter.components import text_encoders
from converter.interface import Interface
from converter.profiles import DIFFUSERS
from converter.sizes import Size
from examples.small_models import MODELS
from runtime.advice import sampling_options
from runtime.latency import PictureTime, Share, picture_times, runs_per_picture
from runtime.sampling import PictureRequest
from targets.base import Artifact
from targets.manifest import Manifest

SIZE = Size(64, 64)
GUIDED = PictureRequest("", steps=20, guidance=7.5)
TOLD = PictureRequest("", scheduler="lcm", steps=4, guidance=1.0)
EMPTY = Interface((), ())


def bundle(name: str, *more: str) -> Bundle:
    """A record of what draws, and of `more` components, without files."""
    architecture: Architecture = MODELS[name]
    ports = {"unet": DIFFUSERS.interface("unet", architecture)}
    names = (*text_encoders(architecture.family), "unet", "vae_decoder", *more)
    components = {
        name: BundleComponent(name, "", "", ports.get(name, EMPTY), "", "", 0, 0, "")
        for name in names
    }
    json, family = architecture.to_json(), architecture.family
    return Bundle(Path("b"), family, json, "diffusers", 1, "epsilon", components)


def artifacts(made: Bundle, batch: int = 1, target: str = "chip") -> list[Artifact]:
    return [
        Artifact(
            component=name,
            target=target,
            chip=target,
            size=None if name.startswith("text") else SIZE,
            batch=batch if name in ("unet", "controlnet") else 1,
            precision="f16",
            path="",
            files=(),
            blake3="",
            key="",
            weights_key="",
            reused=False,
            why="",
            how="bound",
            predicted_ms=float(index + 1),
        )
        for index, name in enumerate(made.components)
    ]


def manifest(made: Bundle, artifacts: list[Artifact]) -> Manifest:
    interfaces = {name: component.interface for name, component in made.components.items()}
    return Manifest(Path("a"), Path("b"), interfaces, artifacts)


@pytest.mark.parametrize(
    ("model", "request_", "batch", "expected"),
    [
        ("sd15", GUIDED, 1, [2, 40, 1]),
        ("sd15", GUIDED, 2, [2, 20, 1]),
        ("sd15", GUIDED, 4, [2, 20, 1]),
        ("sd15", TOLD, 1, [1, 4, 1]),
        ("sd15", TOLD, 2, [1, 4, 1]),
        ("sd15-lcm", PictureRequest("", steps=4, guidance=8.0), 1, [1, 4, 1]),
        ("sdxl", GUIDED, 1, [1, 1, 40, 1]),
        ("sdxl", PictureRequest("", "", steps=20), 1, [2, 2, 40, 1]),
    ],
)
def test_runs(model: str, request_: PictureRequest, batch: int, expected: list[int]) -> None:
    made = bundle(model)
    chosen = {a.component: a for a in artifacts(made, batch)}
    assert [*runs_per_picture(made, chosen, request_).values()] == expected


def test_a_picture_is_the_sum_of_its_runs() -> None:
    made = bundle("sd15")
    times, lacking = picture_times(
        manifest(made, artifacts(made)), made, GUIDED, lambda a: a.predicted_ms
    )
    shares = (Share("text_encoder", 2, 1.0), Share("unet", 40, 2.0), Share("vae_decoder", 1, 3.0))
    assert times == [PictureTime("chip", SIZE, shares)]
    assert times[0].ms == 2 * 1.0 + 40 * 2.0 + 3.0
    assert lacking == []


def test_every_controlnet_makes_another_picture() -> None:
    made = bundle("sd15", "controlnet")
    times, _ = picture_times(manifest(made, artifacts(made)), made, TOLD, lambda a: a.predicted_ms)
    assert [time.controlnets for time in times] == [(), ("controlnet",)]
    assert times[1].ms - times[0].ms == 4 * 4.0


def test_what_is_missing_is_said_and_what_is_unknown_left_out() -> None:
    made = bundle("sd15")
    short = artifacts(made, target="short")[1:]
    told = manifest(made, [*artifacts(made), *short])
    times, lacking = picture_times(told, made, GUIDED, lambda a: a.predicted_ms)
    assert [time.target for time in times] == ["chip"]
    (line,) = lacking
    assert "no text_encoder for short at 64x64" in line
    assert picture_times(told, made, GUIDED, lambda _: None) == ([], lacking)


ADVICE = {"scheduler": "lcm", "steps": 4, "guidance": 1.0, "because": "an LCM-LoRA is merged"}


@pytest.mark.parametrize(
    ("advice", "given", "expected", "followed"),
    [
        (None, {}, ("ddim", 20, 7.5), False),
        (ADVICE, {}, ("lcm", 4, 1.0), True),
        (ADVICE, {"steps": 8}, ("lcm", 8, 1.0), True),
        (ADVICE, {"scheduler": "euler"}, ("euler", 20, 7.5), False),
        (ADVICE, {"scheduler": "lcm", "steps": 2, "guidance": 2.0}, ("lcm", 2, 2.0), False),
    ],
)
def test_how_a_bundle_is_sampled(
    advice: dict[str, object] | None,
    given: dict[str, object],
    expected: tuple[object, ...],
    *,
    followed: bool,
) -> None:
    options, was_followed = sampling_options(advice, **given)  # type: ignore[arg-type]
    assert (*options.values(),) == expected
    assert was_followed is followed
