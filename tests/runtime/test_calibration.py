"""Calibration data of a small model: what is kept, where it is found again, what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.bundle import Bundle
from converter.errors import InputError
from converter.sizes import Size
from converter.weights import Array
from runtime.calibration import CalibrationRequest, calibrate
from runtime.sampling import PictureRequest
from sdconv.main import run
from targets.base import Runner
from targets.calibration import find_data
from targets.compile import CompileRequest, compile_bundle

SIZE = Size(64, 64)


class Broken(Runner):
    """A component whose outputs are not numbers."""

    def __init__(self, bundle: Bundle, component: str) -> None:
        self._ports = bundle.components[component].interface

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        del inputs
        shapes = self._ports.output_shapes(1, SIZE)
        return {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def request_(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> CalibrationRequest:
    return CalibrationRequest(
        bundle=small_bundle.folder,
        prompts=("a cat", "a dog"),
        sizes=(SIZE,),
        sampling=PictureRequest("", scheduler="ddim", steps=2),
        output=tmp_path_factory.mktemp("data") / "calibration",
    )


@pytest.fixture(scope="module")
def entry(request_: CalibrationRequest) -> Path:
    (made,) = calibrate(request_)
    assert not made.reused
    return made.path


def arrays(folder: Path) -> list[dict[str, Array]]:
    files = sorted(folder.glob("*.npz"))
    return [{**np.load(file)} for file in files]


def test_every_component_is_fed_by_the_same_trajectories(entry: Path, small_bundle: Bundle) -> None:
    counts = {folder.name: len(arrays(folder)) for folder in entry.iterdir() if folder.is_dir()}
    # Two prompts, two steps, with and without the prompt; the empty prompt is embedded once.
    assert counts == {"unet": 8, "text_encoder": 3, "vae_decoder": 2, "vae_encoder": 2}
    for component, part in small_bundle.components.items():
        shapes = part.interface.input_shapes(1, SIZE)
        dtypes = {port.name: port.dtype for port in part.interface.inputs}
        for inputs in arrays(entry / component):
            assert {name: array.shape for name, array in inputs.items()} == shapes
            assert {name: array.dtype.name for name, array in inputs.items()} == dtypes
    timesteps = [float(inputs["timestep"][0]) for inputs in arrays(entry / "unet")]
    assert timesteps == [501, 501, 1, 1] * 2
    ports = small_bundle.components["unet"].interface.inputs
    context = next(port.name for port in ports if port.shape[-1] == 64)
    negative, prompt, again, _ = (inputs[context] for inputs in arrays(entry / "unet")[:4])
    assert not np.array_equal(negative, prompt)
    assert np.array_equal(negative, again)


def test_the_folder_says_what_it_was_made_from(entry: Path, small_bundle: Bundle) -> None:
    made_from = json.loads((entry / "inputs.json").read_text())["inputs"]
    assert json.loads(made_from["sampling"])["prompt"] == ["a cat", "a dog"]
    assert made_from["size"] == "64x64"
    assert json.loads(made_from["weights"])["unet"] == small_bundle.components["unet"].weights_key


def test_the_same_again_is_not_drawn_again(request_: CalibrationRequest, entry: Path) -> None:
    def fail(bundle: Bundle, component: str) -> Runner:
        raise AssertionError(component)

    (again,) = calibrate(request_, opener=fail)
    assert again.reused
    assert again.path == entry


def test_data_are_found_by_component_size_batch_and_weights(
    request_: CalibrationRequest, entry: Path, small_bundle: Bundle
) -> None:
    found = find_data(request_.output, small_bundle, "unet", SIZE, 1)
    assert found.folder == entry / "unet"
    assert found.count == 8
    assert find_data(entry, small_bundle, "unet", SIZE, 1) == found
    assert find_data(request_.output, small_bundle, "text_encoder", None, 1).count == 3
    command = f"sdconv calibrate {small_bundle.folder} --sizes 64x64 -b 2 -o {request_.output}"
    with pytest.raises(InputError, match=f"no calibration data of unet at 64x64.*'{command}'"):
        find_data(request_.output, small_bundle, "unet", SIZE, 2)
    with pytest.raises(InputError, match="--sizes 128x64"):
        find_data(request_.output, small_bundle, "unet", Size(128, 64), 1)
    unet = replace(small_bundle.components["unet"], weights_key="changed")
    exported_again = replace(small_bundle, components={**small_bundle.components, "unet": unet})
    with pytest.raises(InputError, match=r"with the weights that .* holds now"):
        find_data(request_.output, exported_again, "unet", SIZE, 1)


def test_of_several_one_has_to_be_named(
    request_: CalibrationRequest, small_bundle: Bundle, entry: Path
) -> None:
    (other,) = calibrate(replace(request_, prompts=("a cat",)))
    with pytest.raises(InputError, match="several calibrations of unet at 64x64: name one of"):
        find_data(request_.output, small_bundle, "unet", SIZE, 1)
    assert find_data(other.path, small_bundle, "unet", SIZE, 1).count == 4


def test_int8_without_data_is_refused_with_the_command_that_makes_them(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    wanted = CompileRequest(
        small_bundle.folder, "bm1684x", (SIZE,), tmp_path, precision={"unet": "int8-mixed"}
    )
    said = (
        "unet 64x64 int8-mixed: INT8 needs calibration data: run 'sdconv calibrate "
        f"{small_bundle.folder} --sizes 64x64 -o calibration', then compile with --calibration"
    )
    with pytest.raises(InputError) as error:
        compile_bundle(wanted)
    assert str(error.value).startswith(said)
    assert [*tmp_path.iterdir()] == []


def test_a_model_that_breaks_down_is_no_source(
    request_: CalibrationRequest, tmp_path: Path
) -> None:
    broken = replace(request_, output=tmp_path / "calibration")
    with pytest.raises(InputError, match="unet is fed infinite values or NaN"):
        calibrate(broken, opener=Broken)
    assert not [*(tmp_path / "calibration").glob("*")]


def test_the_command(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, output = tmp_path / "prompts.txt", tmp_path / "calibration"
    prompts.write_text("a cat\n\n")
    words = ["calibrate", str(small_bundle.folder), "-s", "64", "64", "-o", str(output)]
    words += ["--prompts", str(prompts), "-p", "a dog", "--steps", "1", "--guidance", "1"]
    assert run(words) == 0
    assert "made (made for the first time)" in capsys.readouterr().out
    assert run(words) == 0
    assert "reused (" in capsys.readouterr().out
    (entry,) = output.iterdir()
    assert len(arrays(entry / "unet")) == 2
    prompts.write_text("\n")
    assert run(words) == 2
    assert "no prompt in it: write one on every line" in capsys.readouterr().err
