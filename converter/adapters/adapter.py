"""An adapter bound to a checkpoint: which of its keys change which tensor, and the ledger."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.adapters import dora
from converter.adapters.base import Kind
from converter.adapters.choice import AdapterChoice
from converter.adapters.ledger import Ledger
from converter.cache import content_key
from converter.checkpoint import Checkpoint
from converter.weights import Array


@dataclass(frozen=True)
class TensorChange:
    """What an adapter does to one tensor: formula, keys and factors.

    `strength` is alpha / rank (1 where the kind knows none), `scale` the user's. `dora` is the key
    of DoRA's magnitudes with the axis that they run along. `settings` are the numbers of PEFT's
    configuration that the formula takes.
    """

    kind: Kind
    keys: Mapping[str, str]
    strength: float
    scale: float
    rank: int | None
    dora: tuple[str, int] | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def multiplicative(self) -> bool:
        """Whether the change depends on the weight it meets."""
        return self.kind.multiplicative or self.dora is not None

    def of(self, weight: Array, file: Checkpoint) -> Array:
        """The scaled change of a float64 `weight`, in its shape; `weight` stays as it is.

        A scale other than 1 goes that share of the way to the fully adapted weight.
        """
        parts = {part: _read(file, key) for part, key in self.keys.items()}
        parts |= {name: np.array(value) for name, value in self.settings.items()}
        change = self.kind.change(weight, parts).reshape(weight.shape)
        change *= self.strength
        if self.dora is not None:
            key, axis = self.dora
            change += weight
            change = dora.decompose(change, _read(file, key), axis)
            change -= weight
        change *= self.scale
        return change


def _read(file: Checkpoint, key: str) -> Array:
    values = file.read(key).astype(np.float64)
    file.release(key)
    return values


@dataclass(frozen=True)
class Adapter:
    """An adapter file and its changes: component -> tensor name -> change.

    `content` is the file's BLAKE3, `config` that of PEFT's configuration beside it. `lcm` says
    that it is an LCM-LoRA.
    """

    choice: AdapterChoice
    content: str
    file: Checkpoint
    changes: Mapping[str, Mapping[str, TensorChange]]
    ledger: Ledger
    lcm: bool = False
    config: str | None = None

    @property
    def made_from(self) -> str:
        """The hash of everything that its changes were read from."""
        if self.config is None:
            return self.content
        return content_key({"file": self.content, "config": self.config})

    def active(self, component: str) -> Mapping[str, TensorChange]:
        """The changes of a component whose scale is not 0."""
        return {n: c for n, c in self.changes.get(component, {}).items() if c.scale != 0}

    def identity(self, component: str) -> str:
        """Everything that this adapter does to a component depends on: its file and the scales."""
        scales = {name: change.scale for name, change in self.active(component).items()}
        return content_key({"file": self.made_from, "scales": scales})

    def record(self) -> dict[str, Any]:
        """As it stands in `bundle.json`."""
        changes = [c for tensors in self.changes.values() for c in tensors.values()]
        kinds = Counter(c.kind.name + (" + DoRA" if c.dora else "") for c in changes)
        return {
            "path": str(self.choice.path),
            "kind": ", ".join(kinds) or "nothing",
            "kinds": dict(kinds),
            "scale": self.choice.scale,
            "scales": self.choice.scales,
            "rank": sorted({c.rank for c in changes if c.rank is not None}),
            "blake3": self.content,
            **({} if self.config is None else {"config_blake3": self.config}),
            "identities": {c: self.identity(c) for c in self.changes if self.active(c)},
            "lcm": self.lcm,
            "modules": {component: len(t) for component, t in self.changes.items()},
            "ledger": self.ledger.to_json(),
        }
