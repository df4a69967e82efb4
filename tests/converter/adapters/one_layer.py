"""A model of one layer, and an adapter file for it: what every test of a kind merges."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from converter.adapters.adapter import Adapter
from converter.adapters.binding import AdaptedModel, Binding
from converter.adapters.choice import AdapterChoice
from converter.adapters.merge import Merger
from converter.adapters.peft_metadata import PeftSettings
from converter.containers.opening import open_checkpoint

Tensors = Mapping[str, torch.Tensor]
PREFIX = "lora_unet_layer"


def bound(
    tensors: Tensors,
    weight: torch.Tensor,
    scale: float = 1.0,
    metadata: Mapping[str, str] | None = None,
    content: str = "content",
    prefix: str = PREFIX,
    config: Mapping[str, object] | None = None,
) -> Adapter:
    """Bind parts (without module names) to a layer with this weight and a bias.

    With `config`, PEFT's configuration, they are saved as PEFT does.
    """
    shapes = {"layer.weight": tuple(weight.shape), "layer.bias": tuple(weight.shape[:1])}
    modules = {PREFIX: ("unet", "layer"), "layer": ("unet", "layer")}
    model = AdaptedModel("sd15", ("unet",), {"unet": shapes}, modules)
    named = {f"{prefix}.{part}": tensor.contiguous() for part, tensor in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (
            "adapter.safetensors" if config is None else "adapter_model.safetensors"
        )
        if config is not None:
            path.with_name("adapter_config.json").write_text(json.dumps(config))
        safetensors.torch.save_file(named, path, dict(metadata or {}))
        file = open_checkpoint(path)
        if file.tensors:
            file.read(next(iter(file.tensors)))  # mapped now, so the file may go
        peft = PeftSettings(path, file.metadata)
        binding = Binding(AdapterChoice(path, scale), model, file, peft)
    return Adapter(binding.choice, content, file, binding.changes, binding.ledger)


def merged(*adapters: Adapter, weight: torch.Tensor, tensor: str = "weight") -> torch.Tensor:
    """Merge into the layer's tensor; float64 where anything changed."""
    merger = Merger("unet", adapters)
    return torch.from_numpy(merger.merge(f"layer.{tensor}", weight.numpy()).copy())


def merge_one(
    tensors: Tensors,
    weight: torch.Tensor,
    scale: float = 1.0,
    metadata: Mapping[str, str] | None = None,
) -> torch.Tensor:
    """Merge one adapter, all of whose keys must be used."""
    adapter = bound(tensors, weight, scale, metadata)
    record = adapter.ledger.to_json()
    assert record["used"] == record["total"] == len(tensors), record
    return merged(adapter, weight=weight)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return |found - wanted| / |wanted|."""
    exact = wanted.detach().double()
    return float((found.double() - exact).norm() / exact.norm())
