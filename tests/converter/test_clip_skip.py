"""`--clip-skip` against `encode_prompt(clip_skip=...)` of diffusers' own pipelines.

N is one more than diffusers' `clip_skip`, in every family; ONNX Runtime within 1e-4.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.clip_skip import with_clip_skip
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.families.published import SD2, SD15, SD15_CLIP_SKIP_2, SDXL
from converter.modules import load_module
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from runtime import tokenizer
from tests.converter import reference_models as references

PROMPTS = ["a photo of a red cat", "five boats in a harbor at sunset, oil on canvas"]
NEAR = 1e-4
TEXT = {
    "sd15": ("text_encoder",),
    "sd2": ("text_encoder",),
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sdxl-refiner": ("text_encoder_2",),
}


def encode(name: str, checkpoint: Path, clip_skip: int | None) -> list[torch.Tensor]:
    """What diffusers feeds the UNet with: hidden states, and the pooled output where there is."""
    file = safetensors.torch.load_file(checkpoint)
    words = tokenizer._tokenizer.__wrapped__()  # not the one that all share: it is changed
    words.model_max_length = 77
    modules: dict[str, Any] = {"vae": None, "unet": None, "scheduler": None}
    if name.startswith("sdxl"):
        big_g = f"conditioner.embedders.{len(TEXT[name]) - 1}.model."
        first = None
        if name == "sdxl":
            prefix = "conditioner.embedders.0.transformer."
            first = references.clip_l(file, layers=3, prefix=prefix)
        second = references.open_clip(file, big_g, layers=3, projected=True)
        xl: Any = StableDiffusionXLPipeline(
            text_encoder=first,
            text_encoder_2=second,
            tokenizer=None if first is None else words,
            tokenizer_2=words,
            add_watermarker=False,
            **modules,
        )
        with torch.inference_mode():
            out = xl.encode_prompt(PROMPTS, do_classifier_free_guidance=False, clip_skip=clip_skip)
        return [out[0], out[2]]
    if name == "sd2":
        text = references.open_clip(file, "cond_stage_model.model.", layers=2, projected=False)
    else:
        text = references.clip_l(file, layers=2, prefix=None)
    # transformers 5 has no `text_model` inside the text encoder, and diffusers still asks for it.
    object.__setattr__(text, "text_model", text)
    pipe: Any = StableDiffusionPipeline(
        text_encoder=text,
        tokenizer=words,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **modules,
    )
    with torch.inference_mode():
        return [pipe.encode_prompt(PROMPTS, "cpu", 1, False, clip_skip=clip_skip)[0]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {name: folder / f"{name}.safetensors" for name in TEXT}
    for name, path in paths.items():
        write_checkpoint(path, MODELS[name])
    return paths


def request(name: str, checkpoint: Path, output: Path, number: int | None) -> ExportRequest:
    return ExportRequest(
        checkpoint, output, profile="diffusers", components=TEXT[name], clip_skip=number
    )


def tokens() -> Array:
    words = tokenizer._tokenizer()
    found = words(PROMPTS, padding="max_length", max_length=77, truncation=True)
    return np.array(found["input_ids"], np.int64)


def run(bundle: Bundle) -> list[Array]:
    """Hidden states of all text encoders, joined, and the pooled output."""
    outputs = []
    for record in bundle.components.values():
        session = onnxruntime.InferenceSession(bundle.folder / record.graph)
        outputs.append(session.run(None, {record.interface.inputs[0].name: tokens()}))
    return [np.concatenate([out[0] for out in outputs], axis=-1), outputs[-1][-1]]


@pytest.mark.parametrize("number", [None, 1, 2])
@pytest.mark.parametrize("name", TEXT)
def test_the_graph_gives_what_diffusers_gives_the_unet(
    checkpoints: dict[str, Path], tmp_path: Path, name: str, number: int | None
) -> None:
    wanted = encode(name, checkpoints[name], None if number is None else number - 1)
    bundle = export(request(name, checkpoints[name], tmp_path, number))
    for mine, theirs in zip(run(bundle), wanted, strict=False):
        assert mine.shape == tuple(theirs.shape)
        assert theirs.std() > 0.01
        assert np.abs(mine - theirs.numpy()).max() <= NEAR
    for component in bundle.components.values():
        reference = load_module(bundle, component.name)(torch.from_numpy(tokens()))
        session = onnxruntime.InferenceSession(bundle.folder / component.graph)
        mine = session.run(None, {component.interface.inputs[0].name: tokens()})
        for output, other in zip(mine, reference, strict=True):
            assert np.abs(output - other.numpy()).max() <= NEAR


@pytest.mark.parametrize("name", TEXT)
def test_each_number_is_another_state_and_is_recorded(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    bundles = [export(request(name, checkpoints[name], tmp_path / str(n), n)) for n in (1, 2)]
    (one, pooled), (two, other) = map(run, bundles)
    assert np.abs(one - two).max() > 0.01
    if name.startswith("sdxl"):  # the pooled output is the last layer's
        assert np.abs(pooled - other).max() <= 1e-5
    for number, bundle in enumerate(bundles, 1):
        assert bundle.command[-2:] == ["--clip-skip", str(number)]
        for component in bundle.components:
            own = MODELS[name].to_json()[component]["clip_skip"]
            found = Bundle.load(bundle.folder).architecture[component]["clip_skip"]
            assert found == own + number - 1


def test_one_is_the_familys_own_bit_for_bit(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for name in TEXT:
        own, one = (
            export(request(name, checkpoints[name], tmp_path / f"{name}{n}", n)) for n in (None, 1)
        )
        assert own.architecture == one.architecture
        assert own.components == one.components


def test_numbers_that_no_text_encoder_has_are_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for number, name, most in ((0, "sd15", 2), (3, "sd15", 2), (3, "sd2", 2), (-1, "sdxl", 2)):
        with pytest.raises(InputError, match=rf"--clip-skip {number}: .* to {most}$") as caught:
            export(request(name, checkpoints[name], tmp_path / "out", number))
        assert "\n" not in str(caught.value)
    alone = replace(request("sd15", checkpoints["sd15"], tmp_path / "out", 2), components=("unet",))
    with pytest.raises(InputError, match="no text encoder is part of this export"):
        export(alone)
    assert not (tmp_path / "out").exists()


def test_full_size_models_have_as_many_states_as_layers() -> None:
    assert with_clip_skip(SD15, ("text_encoder",), 2) == SD15_CLIP_SKIP_2
    for architecture, most in ((SD15, 12), (SD2, 23), (SDXL, 11)):
        components = TEXT[architecture.family]
        deepest = with_clip_skip(architecture, components, most)
        assert deepest.text_encoder is not None
        assert deepest.text_encoder.computed_layers == 1
        with pytest.raises(InputError, match=f"has {deepest.text_encoder.layers} layers"):
            with_clip_skip(architecture, components, most + 1)


def test_a_lora_that_trained_a_skipped_layer_is_no_mistake(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    lora = {
        f"lora_te_text_model_encoder_layers_{layer}_mlp_fc1.{part}": values
        for layer in (0, 1)
        for part, values in {
            "lora_down.weight": np.ones((4, 64), np.float32),
            "lora_up.weight": np.ones((256, 4), np.float32),
            "alpha": np.array(4, np.float32),
        }.items()
    }
    path = tmp_path / "lora.safetensors"
    safetensors.numpy.save_file(lora, path)
    skipping = request("sd15", checkpoints["sd15"], tmp_path / "out", 2)
    merged = export(replace(skipping, adapters=(AdapterChoice(path),)))
    ledger = merged.adapters[0]["ledger"]
    reason = "of the text_encoder's layers past the hidden state that this export takes"
    assert (ledger["used"], ledger["total"]) == (3, 6)
    assert sorted(ledger["not_exported"][reason]) == sorted(k for k in lora if "layers_1" in k)
    (changes,) = merged.components["text_encoder"].changes.values()
    assert list(changes) == ["encoder.layers.0.mlp.fc1.weight"]
