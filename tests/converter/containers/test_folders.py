"""Shards and folders: complete ones are read, and every way to be incomplete is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from converter.containers.opening import open_checkpoint
from converter.errors import InputError
from converter.families.prediction import Prediction
from converter.inspection import inspect
from converter.model_files import ModelFiles
from examples.small_models import SMALL
from tests.conftest import SmallModel


def refused(path: Path, reason: str, variant: str | None = None) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        open_checkpoint(path, variant)
    assert "\n" not in str(caught.value)


def test_a_folder_tells_what_it_is(diffusers_folder: Path) -> None:
    found = inspect(diffusers_folder)
    assert (found.kind, found.family, found.problems) == ("checkpoint", "sd15", [])
    assert found.architecture == SMALL
    assert found.spellings["unet"] == "diffusers names"
    assert "unet: safetensors in 3 shards" in found.container
    assert found.missing == {}
    assert found.components["unet"].dtype == "F32"
    half = inspect(diffusers_folder, "fp16")
    assert half.components["unet"].dtype == "F16"
    assert "variant fp16" in half.container


def test_what_a_folder_lacks_is_named_with_its_option(
    diffusers_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(diffusers_folder / "unet", tmp_path / "unet")
    assert inspect(tmp_path).missing == {"text_encoder": "--text-encoder", "vae": "--vae"}
    assert inspect(tmp_path / "unet").kind == "unet"


def test_only_the_variant_there_is_taken(diffusers_folder: Path, tmp_path: Path) -> None:
    full = "diffusion_pytorch_model.safetensors"
    shutil.copytree(diffusers_folder / "vae", tmp_path / "vae", ignore=shutil.ignore_patterns(full))
    assert "variant fp16" in open_checkpoint(tmp_path).container
    refused(tmp_path, "no weights of variant 'bf16'.*it has fp16", "bf16")


def test_a_config_that_contradicts_the_weights_is_named_with_both(
    diffusers_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(diffusers_folder / "text_encoder", tmp_path / "text_encoder")
    path = tmp_path / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": 12}))
    assert inspect(tmp_path).problems == [
        f"text_encoder: {path} says num_hidden_layers 12, the weights and their family say 2"
    ]
    path.write_text("[")
    with pytest.raises(InputError, match="part's configuration"):
        inspect(tmp_path)


def test_the_schedulers_config_decides_the_prediction_type(
    diffusers_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(diffusers_folder / "unet", tmp_path / "unet")
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.parent.mkdir()
    path.write_text('{"prediction_type": "v_prediction"}')
    assert inspect(tmp_path).prediction == Prediction("v_prediction", False, f"{path} says so")
    path.write_text("{}")
    assert inspect(tmp_path).prediction.type == "epsilon"


def test_what_does_not_fit_is_named_as_the_folder_names_it(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    resnet, shortcut = "up_blocks.1.resnets.0", "decoder.up_blocks.2.resnets.0.conv_shortcut.weight"
    fc1, out = "encoder.layers.1.mlp.fc1.weight", "encoder.mid_block.attentions.0.to_out.0.bias"
    missing = {
        "unet": ["time_embedding.linear_1.weight", f"{resnet}.time_emb_proj.bias"],
        "vae": [shortcut, "quant_conv.bias"],
        "text_encoder": [fc1],
    }
    odd = {
        "unet": {f"{resnet}.conv1.bias": torch.zeros(7), f"{resnet}.extra.weight": torch.zeros(3)},
        "vae": {out: torch.zeros(7)},
        "text_encoder": {},
    }
    for part, module in modules.items():
        state = {n: t for n, t in module.state_dict().items() if n not in missing[part]}
        assert len(state) == len(module.state_dict()) - len(missing[part])
        file = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        (tmp_path / part).mkdir()
        safetensors.torch.save_file(state | odd[part], tmp_path / part / f"{file}.safetensors")
    file = "unet/diffusion_pytorch_model.safetensors"
    conv1 = len(modules["unet"].state_dict()[f"{resnet}.conv1.bias"])
    to_out = len(modules["vae"].state_dict()[out])
    assert set(inspect(tmp_path).problems) == {
        *(f"unet: {name} is missing" for name in missing["unet"]),
        f"unet: {resnet}.conv1.bias is [7], [{conv1}] was expected",
        f"{resnet}.extra.weight [3] of {file} belongs to no known layer",
        f"vae_decoder: {shortcut} is missing",
        "vae_encoder: quant_conv.bias is missing",
        f"vae_encoder: {out} is [7], [{to_out}] was expected",
        f"text_encoder: {fc1} is missing",
    }


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "a folder without weights")
    (tmp_path / "unet").mkdir()
    refused(tmp_path, "a folder without weights")


def edited(index: Path, folder: Path, edit: Callable[[dict[str, str]], None]) -> Path:
    """Copy an index and its shards, changing the map."""
    shutil.copytree(index.parent, folder)
    path = folder / index.name
    data = json.loads(path.read_text())
    edit(data["weight_map"])
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b", "a\\b", "..", ""])
def test_an_index_leads_nowhere_else(sharded: Path, tmp_path: Path, name: str) -> None:
    index = edited(sharded, tmp_path / "copy", lambda places: places.update(extra=name))
    refused(index, "does not lie beside its index")


def test_an_index_that_disagrees_with_its_shards_is_refused(sharded: Path, tmp_path: Path) -> None:
    first = next(iter(json.loads(sharded.read_text())["weight_map"]))
    shard = "model-00001-of-00003.safetensors"
    extra = edited(sharded, tmp_path / "a", lambda places: places.update(extra=shard))
    refused(extra, "disagree on 1 tensors, first 'extra'")
    lacking = edited(sharded, tmp_path / "b", lambda places: places.__delitem__(first))
    refused(lacking, "disagree on 1 tensors")
    (tmp_path / "b" / shard).unlink()
    refused(lacking, "1 of 3 shards are missing.*00001-of-00003")
    refused(tmp_path / "b" / "model-00002-of-00003.safetensors", "1 of 3 shards are missing")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 200_000]
)
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    refused(path, "index of shards")


def test_a_tensor_in_two_shards_is_refused(sharded: Path, tmp_path: Path) -> None:
    shutil.copytree(sharded.parent, tmp_path / "copy")
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2)]
    shutil.copyfile(*(tmp_path / "copy" / name for name in names))
    refused(tmp_path / "copy" / names[1], "lies in two shards")


def test_a_part_that_is_another_is_refused(small_model: SmallModel, diffusers_folder: Path) -> None:
    wrong = ModelFiles(small_model.checkpoint, {"unet": diffusers_folder / "vae"})
    with pytest.raises(InputError, match=r"no unet in it.*--unet"):
        wrong.open()
    with pytest.raises(InputError, match="0 of 688 UNet tensors have an EMA copy"):
        ModelFiles(small_model.checkpoint, ema=True).open()
    with pytest.raises(InputError, match="--variant fp16: it chooses"):
        ModelFiles(small_model.checkpoint, variant="fp16").open()
    with pytest.raises(InputError, match="-u"):
        ModelFiles().open()


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(path, "git lfs pull")
