"""LoRA: ``W + scale * alpha / rank * up @ down``, tensor by tensor, with a ledger of every key.

Source of the formula: https://arxiv.org/abs/2106.09685; `alpha` as kohya's sd-scripts store it (a
missing one means alpha = rank).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.adapters.family import adapter_family
from converter.adapters.keys import AdapterKey, adapter_kind, split_key
from converter.checkpoint import Checkpoint
from converter.errors import InputError
from converter.families.rules import TensorRule
from converter.files import blake3_of
from converter.weights import Array


@dataclass
class Ledger:
    """What became of every key of an adapter file."""

    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    not_exported: list[str] = field(default_factory=list)
    """Keys for a component that is not part of this export."""

    def to_json(self) -> dict[str, Any]:
        """Counts, and names where something is off."""
        return {
            "used": len(self.used),
            "unused": self.unused,
            "wrong_shape": self.wrong_shape,
            "not_exported": len(self.not_exported),
        }


@dataclass(frozen=True)
class LoraModule:
    """The factors of one module's change, by key in the adapter's file."""

    down: str
    up: str
    alpha: str | None


@dataclass(frozen=True)
class Lora:
    """An adapter bound to a checkpoint's tensors: tensor name -> factors, per component."""

    path: Path
    scale: float
    content: str
    file: Checkpoint
    modules: Mapping[str, Mapping[str, LoraModule]]
    ledger: Ledger

    def record(self) -> dict[str, Any]:
        """As it stands in `bundle.json`."""
        ranks = sorted({self.file.tensors[m.down].shape[0] for m in self._all()})
        return {
            "path": str(self.path),
            "kind": "LoRA",
            "scale": self.scale,
            "rank": ranks,
            "blake3": self.content,
            "modules": {component: len(m) for component, m in self.modules.items()},
            "ledger": self.ledger.to_json(),
        }

    def _all(self) -> list[LoraModule]:
        return [m for modules in self.modules.values() for m in modules.values()]

    def add_to(self, component: str, name: str, weight: Array) -> Array:
        """Return float32 `weight` plus this adapter's change to tensor `name` (any shape)."""
        module = self.modules.get(component, {}).get(name)
        if module is None or self.scale == 0:
            return weight
        down, up = (self.file.read(k).astype(np.float32) for k in (module.down, module.up))
        rank = down.shape[0]
        alpha = rank if module.alpha is None else float(self.file.read(module.alpha).reshape(()))
        change = up.reshape(up.shape[0], rank) @ down.reshape(rank, -1)
        change *= np.float32(self.scale * alpha / rank)
        change += weight.reshape(change.shape)
        return change.reshape(weight.shape)


def load_lora(
    path: Path,
    scale: float,
    table: Mapping[str, tuple[str, str]],
    rules: Mapping[str, Mapping[str, TensorRule]],
    *,
    family: str,
    exported: tuple[str, ...],
) -> Lora:
    """Open an adapter and find each key's tensor.

    `table` maps module spellings to (component, tensor), `rules` holds the tensors' shapes.
    Raises InputError for a file that is no LoRA, one of another family, or one of a kind that
    is not merged yet. What does not fit is in the ledger; the caller decides.
    """
    file = Checkpoint.open(path)
    kind = adapter_kind(file.tensors)
    if kind is None:
        raise InputError(
            f"{path}: a LoRA was expected and no key in it is one (first key: "
            f"{next(iter(file.tensors), 'none')}): pass checkpoints with -u, LoRAs with -l"
        )
    if kind != "LoRA":
        raise InputError(
            f"{path}: a {kind} adapter, which is not merged yet: plain LoRA files are "
            "(kohya, diffusers or PEFT names)"
        )
    trained_for = adapter_family(file.tensors)
    if trained_for not in (family, "unknown"):
        raise InputError(
            f"{path}: a LoRA for {trained_for}, and the checkpoint is {family}: "
            f"use a LoRA trained for {family}"
        )
    ledger = Ledger()
    groups = _group(file, table, ledger)
    modules: dict[str, dict[str, LoraModule]] = {}
    for (component, name), parts in groups.items():
        keys = [k.key for k in parts.values()]
        if "down" not in parts or "up" not in parts:
            ledger.unused += keys
        elif component not in exported:
            ledger.not_exported += keys
        elif not _fits(file, parts, rules[component][name].shape):
            ledger.wrong_shape += keys
        else:
            alpha = parts["alpha"].key if "alpha" in parts else None
            module = LoraModule(parts["down"].key, parts["up"].key, alpha)
            modules.setdefault(component, {})[name] = module
            ledger.used += keys
    return Lora(path, scale, blake3_of(path), file, modules, ledger)


def _group(
    file: Checkpoint, table: Mapping[str, tuple[str, str]], ledger: Ledger
) -> dict[tuple[str, str], dict[str, AdapterKey]]:
    groups: dict[tuple[str, str], dict[str, AdapterKey]] = {}
    for key in file.tensors:
        split = split_key(key)
        target = None if split is None else table.get(split.module)
        if split is None or target is None:
            ledger.unused.append(key)
        else:
            groups.setdefault(target, {})[split.part] = split
    return groups


def _fits(file: Checkpoint, parts: Mapping[str, AdapterKey], shape: tuple[int, ...]) -> bool:
    down, up = (file.tensors[parts[p].key].shape for p in ("down", "up"))
    inner = int(np.prod(down[1:], dtype=np.int64))
    return (
        len(down) >= 2
        and up[:2] == (shape[0], down[0])
        and int(np.prod(up[2:], dtype=np.int64)) == 1
        and down[1] == shape[1]
        and inner == int(np.prod(shape[1:], dtype=np.int64))
    )
