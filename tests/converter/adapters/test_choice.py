"""How a user names an adapter: file, scale, and scales of parts of the model."""

from pathlib import Path

import pytest

from converter.adapters.choice import AdapterChoice
from converter.errors import InputError

FILE = Path("a.safetensors")


@pytest.mark.parametrize(
    ("text", "scale", "parts"),
    [
        ("a.safetensors", 1.0, ()),
        ("a.safetensors:0.8", 0.8, ()),
        ("a.safetensors:-1e-3", -0.001, ()),
        ("a.safetensors:0.8,unet=1,text=0.5", 0.8, (("unet", 1.0), ("text", 0.5))),
        ("a.safetensors:down.1=0.3,mid=0", 1.0, (("down.1", 0.3), ("mid", 0.0))),
    ],
)
def test_a_choice_is_read_and_written_back(
    text: str, scale: float, parts: tuple[tuple[str, float], ...]
) -> None:
    choice = AdapterChoice.parse(text)
    assert choice == AdapterChoice(FILE, scale, parts)
    assert AdapterChoice.parse(str(choice)) == choice


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ("much", "'much' is no number.*FILE.safetensors:0.8"),
        ("nan", "'nan' is no number"),
        ("", "'' is no number"),
        ("0.8,0.5", "'0.5' names no part: write unet=0.5"),
        ("0.8,unet=x", "'x' is no number"),
    ],
)
def test_what_is_no_scale_is_refused(scales: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdapterChoice.parse(f"a.safetensors:{scales}")


def test_paths_and_addresses_may_hold_a_colon(tmp_path: Path) -> None:
    odd = tmp_path / "b:1"
    odd.touch()
    for text in (str(odd), "https://host/a.safetensors"):
        assert AdapterChoice.parse(text) == AdapterChoice(Path(text))


@pytest.mark.parametrize("scales", ["", ":0.8", ":0.8,unet=1,text=0.5", ":unet=1"])
def test_only_the_file_is_looked_for(scales: str) -> None:
    asked = []

    def local(file: str) -> Path:
        asked.append(file)
        return FILE

    address = "https://host/a.safetensors?type=Model"
    choice = AdapterChoice.parse(address + scales, local)
    assert (asked, choice) == ([address], AdapterChoice.parse(f"{FILE}{scales}"))


DOWN, MID, UP = "down_blocks.1.resnets.0.conv1", "mid_block.resnets.0.conv1", "up_blocks.0.x"
OUTSIDE, TEXT = "conv_in", "encoder.layers.0.mlp.fc1"


def test_the_most_specific_scale_holds() -> None:
    choice = AdapterChoice.parse("a:0.8,unet=0.7,text=0.5,down.1=0.3,mid=0")
    scales = [choice.scale_of("unet", m) for m in (DOWN, MID, UP, OUTSIDE)]
    assert scales == [0.3, 0.0, 0.7, 0.7]
    assert choice.scale_of("text_encoder", TEXT) == choice.scale_of("text_encoder_2", TEXT) == 0.5
    assert AdapterChoice.parse("a:0.8,down.1=0.3").scale_of("text_encoder", TEXT) == 0.8


def test_a_part_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    modules = [("unet", m) for m in (DOWN, MID, UP, OUTSIDE)] + [("text_encoder", TEXT)]
    AdapterChoice.parse("a:unet=1,text=1,down.1=1,mid=1,up.0=1").check_names(modules)
    with pytest.raises(InputError, match=r"'down\.2'.*unet, text, down\.1, mid, up\.0"):
        AdapterChoice.parse("a:down.2=1").check_names(modules)
