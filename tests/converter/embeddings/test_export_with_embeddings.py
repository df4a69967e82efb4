"""Embeddings through the whole export, against diffusers, transformers, and a bundle without."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.clip_vocabulary import clip_vocabulary
from converter.embeddings.choice import EmbeddingChoice
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.modules import load_module
from converter.sizes import Size
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from runtime.generate import GenerateRequest, generate
from runtime.sampling import PictureRequest
from runtime.tokenizer import tokenize
from sdconv.main import run
from targets.compile import CompileRequest, compile_bundle
from tests.conftest import SmallModel
from tests.converter import reference_models as references
from tests.converter.embeddings import files
from validate.prompts import token_rows

NEAR = 1e-4
TABLE = "embeddings.token_embedding.weight"
PROMPTS = [
    "a photo of <toy>, in the Dutch-Style of rembrandt",
    "DUTCH-STYLE, <toy> <toy>",
    "a red cat",
]


def outputs(bundle: Bundle, component: str, tokens: Array) -> list[Array]:
    record = bundle.components[component]
    session = onnxruntime.InferenceSession(bundle.folder / record.graph)
    port = record.interface.inputs[0]
    return session.run(None, {port.name: tokens.astype(port.dtype)})  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def embedding_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One of three vectors in A1111's layout, one of a single vector in diffusers'."""
    folder = tmp_path_factory.mktemp("embeddings")
    toy = files.a1111(folder / "toy.pt", files.vectors(3, 64, 1), "<toy>")
    style = files.diffusers(folder / "learned_embeds.safetensors", files.vectors(1, 64, 2)[0])
    return toy, style


@pytest.fixture(scope="module")
def plain(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> ExportRequest:
    output = tmp_path_factory.mktemp("plain")
    request = ExportRequest(small_model.checkpoint, output, profile="diffusers")
    export(request)
    return request


@pytest.fixture(scope="module")
def bundle(
    plain: ExportRequest,
    embedding_files: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    toy, style = embedding_files
    choices = (EmbeddingChoice(toy), EmbeddingChoice(style, "dutch-style"))
    return export(replace(plain, output=tmp_path_factory.mktemp("bundle"), embeddings=choices))


def test_prompts_mean_what_diffusers_takes_them_for(
    small_model: SmallModel, bundle: Bundle, embedding_files: tuple[Path, Path]
) -> None:
    tokens, merges = clip_vocabulary()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    words = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)  # type: ignore[arg-type]
    file = safetensors.torch.load_file(small_model.checkpoint)
    pipe: Any = StableDiffusionPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        text_encoder=references.clip_l(file, layers=2, prefix=None),
        tokenizer=words,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for path, name in zip(embedding_files, ("<toy>", "dutch-style"), strict=True):
        pipe.load_textual_inversion(str(path), token=name)
    prompts = [prompt.lower() for prompt in PROMPTS]  # diffusers finds names in their own case
    with torch.inference_mode():
        wanted = pipe.encode_prompt(prompts, "cpu", 1, False)[0].numpy()
    mine = outputs(bundle, "text_encoder", tokenize(PROMPTS, words=bundle.words))[0]
    assert np.abs(wanted[0] - wanted[2]).max() > 0.1
    assert np.abs(mine - wanted).max() <= NEAR
    converted = pipe.maybe_convert_prompt(prompts, words)
    theirs = words(converted, padding="max_length", max_length=77)["input_ids"]
    assert tokenize(PROMPTS, words=bundle.words).tolist() == theirs


def extended(module: Any, *rows: torch.Tensor) -> Any:
    """The same transformers module with more rows behind its token embedding."""
    table = module.get_input_embeddings()
    table.weight = torch.nn.Parameter(torch.cat([table.weight, *rows]))
    # 2, as published, stands for the highest id of the row, which an added one would be.
    text = getattr(module, "text_model", module)
    text.eos_token_id = 49407
    return module


def test_both_text_encoders_of_sdxl_take_their_rows(tmp_path: Path) -> None:
    checkpoint = tmp_path / "sdxl.safetensors"
    write_checkpoint(checkpoint, MODELS["sdxl"])
    first, second = files.vectors(2, 64, 3), files.vectors(2, 128, 4)
    path = files.sdxl(tmp_path / "toy.safetensors", first, second)
    bundle = export(
        ExportRequest(
            checkpoint,
            tmp_path / "out",
            profile="diffusers",
            components=("text_encoder", "text_encoder_2"),
            embeddings=(EmbeddingChoice(path, "<toy>"),),
        )
    )
    file = safetensors.torch.load_file(checkpoint)
    prefix = "conditioner.embedders.0.transformer."
    modules = {
        "text_encoder": extended(references.clip_l(file, layers=3, prefix=prefix), first),
        "text_encoder_2": extended(
            references.open_clip(file, "conditioner.embedders.1.model.", layers=3, projected=True),
            second,
        ),
    }
    tokens = tokenize(["a <toy> in a box", "<toy>", "a red cat"], words=bundle.words)
    for component, module in modules.items():
        with torch.inference_mode():
            out = module(input_ids=torch.from_numpy(tokens), output_hidden_states=True)
            reference = load_module(bundle, component)(torch.from_numpy(tokens))
        wanted = [out.hidden_states[-2]]
        if component == "text_encoder_2":
            wanted.append(out.text_embeds)
        mine = outputs(bundle, component, tokens)
        for found, own, theirs in zip(mine, reference, wanted, strict=True):
            assert theirs.std() > 0.01
            assert np.abs(found - theirs.numpy()).max() <= NEAR
            assert np.abs(found - own.numpy()).max() <= NEAR


def test_the_pooled_output_stays_at_the_end_of_the_prompt(
    bundle: Bundle, plain: ExportRequest
) -> None:
    # `pooler_output` is the hidden state at the first end; without names both bundles agree.
    tokens = tokenize(PROMPTS, words=bundle.words)
    hidden, pooled = outputs(bundle, "text_encoder", tokens)
    ends = (tokens == 49407).argmax(axis=1)
    np.testing.assert_array_equal(pooled, hidden[np.arange(3), ends])
    alone = outputs(Bundle.load(plain.output), "text_encoder", tokens[2:])
    for mine, theirs in zip((hidden[2:], pooled[2:]), alone, strict=True):
        assert np.abs(mine - theirs).max() <= 1e-5


def test_only_the_table_of_tokens_grows(
    bundle: Bundle, plain: ExportRequest, embedding_files: tuple[Path, Path]
) -> None:
    base = Bundle.load(plain.output)
    before, after = base.weights("text_encoder"), bundle.weights("text_encoder")
    assert list(before.names()) == list(after.names())
    assert before.key != after.key
    for name in after.names():
        new, old = after.read(name), before.read(name)
        np.testing.assert_array_equal(new[: len(old)], old)
        assert new.shape == ((49412, 64) if name == TABLE else old.shape)
    rows = np.concatenate([files.vectors(3, 64, 1), files.vectors(1, 64, 2)])
    np.testing.assert_array_equal(after.read(TABLE)[49408:], rows)
    for name in ("unet", "vae_encoder", "vae_decoder"):
        assert base.components[name] == bundle.components[name]


def test_the_bundle_tells_what_its_names_stand_for(
    bundle: Bundle, plain: ExportRequest, embedding_files: tuple[Path, Path]
) -> None:
    toy, style = Bundle.load(bundle.folder).embeddings
    assert (toy["name"], toy["ids"], toy["vectors"]) == ("<toy>", [49408, 49409, 49410], 3)
    assert (style["name"], style["ids"], style["path"]) == (
        "dutch-style", [49411], str(embedding_files[1]),
    )  # fmt: skip
    assert len(toy["blake3"]) == 64
    assert bundle.architecture["text_encoder"]["vocabulary"] == 49412
    words = [
        "--embedding",
        str(embedding_files[0]),
        "--embedding",
        f"dutch-style={embedding_files[1]}",
    ]
    assert bundle.command[-4:] == words
    assert "embeddings" not in json.loads((plain.output / "bundle.json").read_text())


def test_another_file_or_order_is_another_text_encoder(
    bundle: Bundle, plain: ExportRequest, embedding_files: tuple[Path, Path], tmp_path: Path
) -> None:
    toy, style = (EmbeddingChoice(path) for path in embedding_files)
    alone = replace(plain, output=tmp_path, components=("text_encoder",))
    other = replace(style, name="other")
    keys = [
        export(replace(alone, embeddings=chosen)).components["text_encoder"].weights_key
        for chosen in ((toy, style), (style, toy), (toy,), (), (toy, other))
    ]
    assert len(set(keys[:4])) == 4
    assert keys[4] == keys[0]  # a name is not part of the weights
    assert keys[0] == bundle.components["text_encoder"].weights_key


def test_an_embedding_given_for_something_else_is_told_its_option(
    plain: ExportRequest, embedding_files: tuple[Path, Path], tmp_path: Path
) -> None:
    toy, style = embedding_files
    with pytest.raises(InputError, match=r"a textual_inversion file, .* with --embedding"):
        export(replace(plain, checkpoint=toy, output=tmp_path))
    with pytest.raises(InputError, match="embeddings with --embedding"):
        export(replace(plain, adapters=(AdapterChoice(style),), output=tmp_path))


def test_test_inputs_hold_every_added_token() -> None:
    rows = token_rows(0, (3, 77), 49412)
    assert rows[0][:4].tolist() == token_rows(0, (1, 77), 49408)[0][:4].tolist()
    assert [token for token in rows[0].tolist() if token > 49407] == [49408, 49409, 49410, 49411]
    assert rows[1:].max() == 49407


def test_a_name_draws_another_picture(
    small_model: SmallModel,
    embedding_files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["export", "-u", str(small_model.checkpoint), "-o", str(tmp_path / "out")]
    assert run([*words, "--embedding", f"toy={embedding_files[0]}", "--clip-skip", "2"]) == 0
    assert 'embedding "toy": tokens 49408, 49409, 49410' in capsys.readouterr().out
    artifacts = tmp_path / "artifacts"
    compile_bundle(CompileRequest(tmp_path / "out", "onnxruntime", (Size(64, 64),), artifacts))
    pictures: list[bytes] = []
    for prompt in ("a toy", "a cat", "a TOY"):
        request = PictureRequest(prompt, steps=1, guidance=1)
        path = tmp_path / f"{len(pictures)}.png"
        pictures.append(generate(GenerateRequest(artifacts, path, request)).read_bytes())
    assert pictures[0] != pictures[1]
    assert pictures[0] == pictures[2]
