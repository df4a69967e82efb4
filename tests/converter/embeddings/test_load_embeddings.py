"""Every format gives its vectors and its name; what is no embedding is refused with what to do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from converter.architecture import Architecture
from converter.embeddings.choice import EmbeddingChoice
from converter.embeddings.embedding import Embedding
from converter.embeddings.load import load_embeddings
from converter.errors import InputError
from converter.families.published import SD2, SD15, SDXL
from converter.inspection import inspect
from examples.small_models import MODELS, SMALL
from tests.conftest import SmallModel
from tests.converter.embeddings import files

VALUES = files.vectors(2, 64)
ENCODERS = ("text_encoder", "text_encoder_2")


def load(
    *paths: Path, model: Architecture = SMALL, exported: tuple[str, ...] | None = None
) -> list[Embedding]:
    present = tuple(name for name in ENCODERS if getattr(model, name) is not None)
    choices = [EmbeddingChoice(path) for path in paths]
    return load_embeddings(choices, model, present if exported is None else exported)


FORMATS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "A1111": ("a.pt", lambda p: files.a1111(p, VALUES), "its-name"),
    "A1111 without a name": ("a.pt", lambda p: files.a1111(p, VALUES, None), "a"),
    "original": ("o.pt", lambda p: files.original(p, VALUES), "o"),
    "A1111, before torch 1.6": (
        "a.pt",
        lambda p: files.a1111(p, VALUES, zipped=False),
        "its-name",
    ),
    "emb_params": ("My Style.safetensors", lambda p: files.emb_params(p, VALUES), "My Style"),
    "diffusers, pickled": ("d.bin", lambda p: files.diffusers(p, VALUES), "<token>"),
    "diffusers": ("d.safetensors", lambda p: files.diffusers(p, VALUES), "<token>"),
}


@pytest.mark.parametrize("case", FORMATS)
def test_every_format_gives_its_vectors_and_its_name(tmp_path: Path, case: str) -> None:
    file_name, write, name = FORMATS[case]
    path = write(tmp_path / file_name)
    (found,) = load(path)
    assert found.name == name
    assert list(found.ids) == [49408, 49409]
    np.testing.assert_array_equal(found.vectors["text_encoder"], VALUES.numpy())
    assert inspect(path).kind == "textual_inversion"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_single_vector_of_any_precision_becomes_a_row_of_float32(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    values = VALUES[0].to(dtype)
    (found,) = load(files.diffusers(tmp_path / "d.safetensors", values))
    assert list(found.ids) == [49408]
    rows = found.vectors["text_encoder"]
    assert rows.shape == (1, 64) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], values.float().numpy())


def test_sdxl_files_give_each_text_encoder_its_own(tmp_path: Path) -> None:
    first, second = files.vectors(3, 64), files.vectors(3, 128, 1)
    path = files.sdxl(tmp_path / "xl.safetensors", first, second)
    (found,) = load(path, model=MODELS["sdxl"])
    assert list(found.ids) == [49408, 49409, 49410]
    np.testing.assert_array_equal(found.vectors["text_encoder"], first.numpy())
    np.testing.assert_array_equal(found.vectors["text_encoder_2"], second.numpy())
    (alone,) = load(path, model=MODELS["sdxl-refiner"])  # it has the second encoder only
    assert list(alone.vectors) == ["text_encoder_2"]


def test_ids_follow_each_other_behind_the_vocabulary(tmp_path: Path) -> None:
    paths = [files.emb_params(tmp_path / f"{n}.safetensors", VALUES) for n in "ab"]
    assert [list(e.ids) for e in load(*paths)] == [[49408, 49409], [49410, 49411]]
    assert SMALL.text_encoder is not None
    longer = replace(SMALL, text_encoder=replace(SMALL.text_encoder, vocabulary=49500))
    assert list(load(paths[0], model=longer)[0].ids) == [49500, 49501]
    shorter = replace(SMALL, text_encoder=replace(SMALL.text_encoder, vocabulary=1000))
    with pytest.raises(InputError, match="text encoders of 1000 tokens"):
        load(paths[0], model=shorter)


@pytest.mark.parametrize(
    ("model", "widths", "reason"),
    [
        (SDXL, (768,), r"for sd15 \(768 .*checkpoint is sdxl \(768 \+ 1280\).*trained for sdxl"),
        (SD2, (768,), r"for sd15 \(768 .*checkpoint is sd2 \(1024\)"),
        (SD15, (1024,), r"for sd2 \(1024 .*checkpoint is sd15 \(768\)"),
        (SD15, (768, 1280), r"for sdxl \(768 \+ 1280 .*checkpoint is sd15 \(768\)"),
        (SD15, (320,), r"for an unknown family \(320 .*checkpoint is sd15 \(768\)"),
    ],
)
def test_another_familys_embedding_is_refused_with_both_names(
    tmp_path: Path, model: Architecture, widths: tuple[int, ...], reason: str
) -> None:
    path = tmp_path / "e.safetensors"
    values = [files.vectors(1, width) for width in widths]
    if len(values) == 1:
        files.emb_params(path, values[0])
    else:
        files.sdxl(path, values[0], values[1])
    with pytest.raises(InputError, match=reason) as caught:
        load(path, model=model)
    assert "\n" not in str(caught.value)


def test_half_of_an_sdxl_file_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    safetensors.torch.save_file({"clip_g": files.vectors(1, 128)}, path)
    with pytest.raises(InputError, match=r"for sdxl \(128 .*is sdxl \(64 \+ 128\)"):
        load(path, model=MODELS["sdxl"])


def test_a_name_is_given_once_whatever_its_case(tmp_path: Path) -> None:
    paths = [files.emb_params(tmp_path / f"{n}.safetensors", VALUES) for n in ("Cat", "cat")]
    with pytest.raises(InputError, match=r"'cat' is that of .*Cat.safetensors already"):
        load(*paths)
    renamed = [EmbeddingChoice(paths[0], "dog"), EmbeddingChoice(paths[1])]
    assert [e.name for e in load_embeddings(renamed, SMALL, ENCODERS)] == ["dog", "cat"]


def test_files_of_another_kind_are_refused_with_their_option(
    small_model: SmallModel, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({"a": VALUES, "b": VALUES + 1}, odd)
    narrow = files.emb_params(tmp_path / "narrow.safetensors", files.vectors(1, 77))
    for path, reason in (
        (small_model.checkpoint, "a checkpoint file, where an embedding .* with -u"),
        (small_model.lora, "a lora file, where an embedding .* with -l"),
        (odd, "give a textual inversion file"),
        (narrow, "give a textual inversion file"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_damaged_vectors_are_refused(tmp_path: Path) -> None:
    broken = VALUES.clone()
    broken[1, 3] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        load(files.emb_params(tmp_path / "nan.safetensors", broken))
    with pytest.raises(InputError, match=r"of 76 vectors, .* 1 to 75"):
        load(files.emb_params(tmp_path / "long.safetensors", files.vectors(76, 64)))
    path = files.sdxl(tmp_path / "xl.safetensors", files.vectors(1, 64), files.vectors(2, 128))
    with pytest.raises(InputError, match="of 1 and 2 vectors"):
        load(path, model=MODELS["sdxl"])


def test_a_text_encoder_that_is_not_exported_takes_none(tmp_path: Path) -> None:
    path = files.emb_params(tmp_path / "e.safetensors", VALUES)
    with pytest.raises(InputError, match="text_encoder would take it and is not part"):
        load(path, exported=("unet",))
    assert load(exported=("unet",)) == []


def test_a_choice_is_a_file_or_a_name_and_a_file(tmp_path: Path) -> None:
    parse = EmbeddingChoice.parse
    assert parse("a/b.pt") == EmbeddingChoice(Path("a/b.pt"))
    assert parse("my  style=a/b.pt") == EmbeddingChoice(Path("a/b.pt"), "my style")
    assert parse("<toy>=x=y.pt") == EmbeddingChoice(Path("x=y.pt"), "<toy>")
    address = "https://host/e.pt#sha256=00"
    assert parse(address, lambda text: Path(f"/{len(text)}")).path == Path(f"/{len(address)}")
    odd = tmp_path / "a=b.pt"
    odd.touch()
    assert parse(str(odd)) == EmbeddingChoice(odd)
    for text in ("=a.pt", " =a.pt", "<|endoftext|>=a.pt", "name="):
        with pytest.raises(InputError, match="NAME=FILE"):
            parse(text)
    for text in ("a/b.pt", "style=a/b.pt"):
        assert str(parse(text)) == text
