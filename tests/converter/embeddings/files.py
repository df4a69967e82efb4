"""Embedding files as their tools write them."""

from pathlib import Path

import safetensors.torch
import torch


def vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random vectors of the size that trained ones have."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 0.02


def a1111(
    path: Path, values: torch.Tensor, name: str | None = "its-name", *, zipped: bool = True
) -> Path:
    """A1111's own: a plain dict, with a step and the checkpoint that it was trained on."""
    contents = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": values},
        "name": name,
        "step": 3000,
        "sd_checkpoint": "a9263745",
        "sd_checkpoint_name": "some-checkpoint",
    }
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    return path


def original(path: Path, values: torch.Tensor) -> Path:
    """Textual inversion's own: a ParameterDict, and the id of the token that was trained."""
    contents = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(values)}),
    }
    torch.save(contents, path)
    return path


def emb_params(path: Path, values: torch.Tensor) -> Path:
    """The same as safetensors."""
    safetensors.torch.save_file({"emb_params": values}, path)
    return path


def sdxl(path: Path, first: torch.Tensor, second: torch.Tensor) -> Path:
    """Both text encoders' in one file."""
    safetensors.torch.save_file({"clip_l": first, "clip_g": second}, path)
    return path


def diffusers(path: Path, values: torch.Tensor, token: str = "<token>") -> Path:  # noqa: S107
    """The token and its vectors, as diffusers' training writes them."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({token: values}, path)
    else:
        torch.save({token: values}, path)
    return path
