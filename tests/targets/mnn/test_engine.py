"""Profile mnn: what is made for MNN's diffusion engine, held against what the engine demands."""

from dataclasses import replace
from pathlib import Path

import pytest

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.progress import silent
from converter.sizes import Size
from examples.mini.score import FILES
from targets.base import Conformance
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.mnn.engine import TOKENIZER
from targets.mnn.model import WEIGHTS_SUFFIX
from targets.mnn.target import MnnTarget
from targets.mnn.toolchain import Mnn
from tests.conftest import SmallModel

SIZE = Size(512, 512)


@pytest.fixture(scope="module")
def engine_bundle(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("bundle-mnn")
    return export(ExportRequest(small_model.checkpoint, output, profile="mnn"))


@pytest.fixture(scope="module")
def folder(mnn: Mnn, engine_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    del mnn
    output = tmp_path_factory.mktemp("engine")
    components = ("text_encoder", "unet", "vae_decoder")
    request = CompileRequest(engine_bundle.folder, "mnn", (SIZE,), output, components=components)
    return compile_bundle(request, silent)


def checked(manifest: Manifest, bundle: Bundle) -> dict[str, Conformance]:
    found = MnnTarget().conformance(bundle, manifest.artifacts, manifest.folder)
    return {file.path: file for file in found}


def test_the_folder_is_as_the_engine_loads_it(folder: Manifest, engine_bundle: Bundle) -> None:
    files = {path.name for path in folder.folder.iterdir()}
    models = {"text_encoder.mnn", "unet.mnn", "vae_decoder.mnn"}
    assert files >= models | {name + WEIGHTS_SUFFIX for name in models} | {TOKENIZER}
    found = checked(folder, engine_bundle)
    assert set(found) == models | {TOKENIZER}
    assert all(file.faults == () for file in found.values())
    batches = {artifact.component: artifact.batch for artifact in folder.artifacts}
    assert batches == {"text_encoder": 2, "unet": 2, "vae_decoder": 1}


def test_what_the_engine_would_not_notice_is_noticed(
    folder: Manifest, engine_bundle: Bundle, tmp_path: Path
) -> None:
    for file in folder.folder.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    moved = replace(folder, folder=tmp_path)
    assert not any(file.faults for file in checked(moved, engine_bundle).values())
    (tmp_path / TOKENIZER).unlink()
    (tmp_path / f"unet.mnn{WEIGHTS_SUFFIX}").unlink()
    found = checked(moved, engine_bundle)
    assert found[TOKENIZER].faults == ("not there: run the same compile again",)
    assert "bytes of weights are there" in found["unet.mnn"].faults[0]
    (tmp_path / TOKENIZER).write_bytes(b"430 4\n0 0 0\n\n")
    assert "not the tokenizer of this bundle" in checked(moved, engine_bundle)[TOKENIZER].faults[0]


def test_other_ports_are_faults(
    folder: Manifest, engine_bundle: Bundle, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    """The same model for another consumer: its timestep is a float."""
    request = CompileRequest(
        diffusers_bundle.folder, "mnn", (SIZE,), tmp_path, components=("unet",)
    )
    (other,) = compile_bundle(request, silent).artifacts
    mine = [a for a in folder.artifacts if a.component != "unet"]
    found = MnnTarget().conformance(engine_bundle, [*mine, other], tmp_path)
    (unet,) = [file for file in found if file.path == "unet.mnn"]
    assert "it lies at mnn/unet.mnn" in unet.faults[0]
    assert unet.faults[1] == "input timestep is float32 [1], and int32 [1] is fed"
    missing = MnnTarget().conformance(engine_bundle, [other], tmp_path)
    assert "not there" in {file.path: file for file in missing}["vae_decoder.mnn"].faults[0]
    assert MnnTarget().conformance(diffusers_bundle, [other], tmp_path) == []


@pytest.mark.parametrize("size", [Size(64, 64), Size(512, 768)])
def test_other_sizes_are_refused(size: Size, engine_bundle: Bundle) -> None:
    request = CompileRequest(engine_bundle.folder, "mnn", (size,))
    with pytest.raises(InputError, match="profile mnn runs 512x512 only"):
        compile_bundle(request, silent)


def test_the_bundle_says_how_the_engine_draws(engine_bundle: Bundle) -> None:
    assert engine_bundle.batch == 2
    assert engine_bundle.sampling is not None
    assert engine_bundle.sampling["scheduler"] == "plms"
    timestep = engine_bundle.components["unet"].interface.inputs[1]
    assert (timestep.name, timestep.dtype) == ("timestep", "int32")


def test_an_lcm_is_refused_for_an_engine_that_cannot_draw_with_it(
    tmp_path: Path, small_model: SmallModel
) -> None:
    lora = (AdapterChoice(FILES / "mini-lcm-lora.safetensors", 1.0),)
    checkpoint = FILES / "mini-sd15.safetensors"
    request = ExportRequest(checkpoint, tmp_path / "out", lora, profile="mnn")
    with pytest.raises(InputError, match=r"profile mnn draws with plms and guidance 7\.5 only"):
        export(request)
    assert not (tmp_path / "out").exists()
