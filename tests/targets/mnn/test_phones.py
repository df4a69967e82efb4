"""Profile adreno: SDXL's text encoders for a phone, in 8 bits, by the names that it binds."""

from pathlib import Path

import numpy as np
import pytest

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.raw_tensors import read_raw
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from runtime.tokens import TokensRequest, write_tokens
from sdconv.main import run
from targets.mnn.toolchain import Mnn
from targets.torch_reference import open_reference
from tests.conftest import SmallModel

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"
    write_checkpoint(path, MODELS["sdxl"])
    return path


@pytest.fixture(scope="module")
def phone_bundle(checkpoint: Path) -> Bundle:
    return export(ExportRequest(checkpoint, checkpoint.parent / "adreno", profile="adreno"))


def test_the_text_encoders_have_the_ports_that_a_phone_binds(phone_bundle: Bundle) -> None:
    encoders = ["text_encoder", "text_encoder_2"]
    assert list(phone_bundle.components) == [*encoders, "unet", "vae_decoder"]
    for name, widths in (("text_encoder", (64, 64)), ("text_encoder_2", (128, 128))):
        ports = phone_bundle.components[name].interface
        assert [(p.name, p.dtype, p.shape) for p in ports.inputs] == [
            ("input_ids", "int32", ("batch", 77))
        ]
        state, pooled = ports.outputs
        assert (state.name, state.shape) == ("last_hidden_state", ("batch", 77, widths[0]))
        assert (pooled.name, pooled.shape) == ("pooled_output", ("batch", widths[1]))


def test_what_they_give_is_what_other_consumers_know_by_other_names(
    checkpoint: Path, phone_bundle: Bundle
) -> None:
    """The hidden state is the penultimate one; pooled is the last one where the prompt ends."""
    known = export(ExportRequest(checkpoint, checkpoint.parent / "demo", profile="sophon-demo"))
    (ids,) = write_tokens(TokensRequest(PROMPT, checkpoint.parent, bundle=phone_bundle.folder))[:1]
    tokens = read_raw(ids, (2, 77))
    with (
        open_reference(phone_bundle, "text_encoder") as phone,
        open_reference(known, "text_encoder") as demo,
    ):
        mine, theirs = phone.infer({"input_ids": tokens}), demo.infer({"tokens": tokens})
    assert np.array_equal(mine["last_hidden_state"], theirs["penultimate_hidden_state"])
    ends = (tokens == 49407).argmax(axis=1)
    assert np.array_equal(mine["pooled_output"], theirs["last_hidden_state"][[0, 1], ends])


def test_sd15_has_one_text_encoder_whose_last_state_it_is(
    small_model: SmallModel, tmp_path: Path
) -> None:
    bundle = export(ExportRequest(small_model.checkpoint, tmp_path, profile="adreno"))
    assert list(bundle.components) == ["text_encoder", "unet", "vae_decoder"]
    outputs = bundle.components["text_encoder"].interface.outputs
    assert [port.name for port in outputs] == ["last_hidden_state", "pooled_output"]


def test_a_component_that_no_phone_runs_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    request = ExportRequest(checkpoint, tmp_path, profile="adreno", components=("vae_encoder",))
    takes = "text_encoder, text_encoder_2, unet, vae_decoder"
    with pytest.raises(InputError, match=f"profile adreno takes {takes} and no"):
        export(request)


def test_they_are_compiled_without_naming_size_or_precision(
    mnn: Mnn, phone_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del mnn
    words = ["compile", "-n", str(phone_bundle.folder), "-o", str(tmp_path), "--target", "mnn"]
    assert run([*words, "--components", "text_encoder,text_encoder_2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 artifacts" in said
    for name in ("text_encoder", "text_encoder_2"):
        assert (tmp_path / "mnn" / f"{name}.mnn.weight").is_file()
