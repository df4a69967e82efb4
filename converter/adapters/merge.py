"""Merge adapters into tensors as they stream by: order, accuracy, and the norm of each change.

Everything is computed in float64 and rounded once. Additive changes that follow each other are
summed in an order that depends on the files alone, so the user's order makes no difference, not
even in the last bit; a multiplicative change meets the weight that those before it left.
"""

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np

from converter.adapters.adapter import Adapter, TensorChange
from converter.errors import InputError
from converter.weights import Array

Changes = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""Adapter (its identity in the component) -> tensor -> ``norm``, the Frobenius norm of its change,
and ``relative``, its ratio to the norm of the checkpoint's tensor (None for a tensor of zeros)."""


class Merger:
    """Merges adapters into the tensors of one component.

    `norms` (see `Changes`) fills while tensors are merged, its adapters in the order of merging.
    """

    def __init__(self, component: str, adapters: Sequence[Adapter]) -> None:
        active = [a for a in adapters if a.active(component)]
        self._component = component
        ordered = _canonical(component, active)
        identities = [adapter.identity(component) for adapter in ordered]
        self._changes: dict[str, list[tuple[str, Adapter, TensorChange]]] = {}
        for identity, adapter in zip(identities, ordered, strict=True):
            for name, change in adapter.active(component).items():
                self._changes.setdefault(name, []).append((identity, adapter, change))
        # A few float64 copies of a tensor exist while it is merged: one at a time, whoever reads.
        self._lock = Lock()
        self.norms: dict[str, dict[str, Mapping[str, float | None]]] = {
            identity: {} for identity in identities
        }

    def depends_on(self, name: str) -> list[tuple[str, float]]:
        """What a merged tensor depends on besides the checkpoint's, in the order of merging.

        The hash of each adapter's files, and the scale.
        """
        return [(a.made_from, c.scale) for _, a, c in self._changes.get(name, ())]

    def adopt(self, name: str, earlier: Changes) -> None:
        """Take over the norms of a tensor that was merged earlier from what it depends on now.

        Other scales elsewhere may have given its adapters other identities since.
        """
        norms = [changes[name] for changes in earlier.values() if name in changes]
        now = dict.fromkeys(identity for identity, _, _ in self._changes.get(name, ()))
        for identity, norm in zip(now, norms, strict=True):
            self.norms[identity][name] = norm

    def merge(self, name: str, weight: Array) -> Array:
        """Merge into one tensor: float64, or `weight` itself where no adapter changes it.

        Raises InputError when a change is not finite.
        """
        if name not in self._changes:
            return weight
        with self._lock:
            return self._merge(name, weight)

    def _merge(self, name: str, weight: Array) -> Array:
        merged = weight.astype(np.float64)
        before = _norm(merged)
        for identity, adapter, tensor_change in self._changes[name]:
            with np.errstate(all="ignore"):  # what is not finite is refused below
                change = tensor_change.of(merged, adapter.file)
            norm = _norm(change)
            if not np.isfinite(norm):
                raise InputError(
                    f"{adapter.choice.path}: its change of {self._component} {name} is not finite: "
                    "the file is damaged; download it again"
                )
            self.norms[identity][name] = {
                "norm": _short(norm), "relative": _short(norm / before) if before else None
            }  # fmt: skip
            merged += change
        return merged


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values.reshape(-1)))


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _canonical(component: str, adapters: Sequence[Adapter]) -> list[Adapter]:
    """Sort each run of purely additive adapters; keep the rest where the user put them."""

    def by_identity(adapter: Adapter) -> str:
        return adapter.identity(component)

    ordered: list[Adapter] = []
    run: list[Adapter] = []
    for adapter in adapters:
        if any(c.multiplicative for c in adapter.active(component).values()):
            ordered += [*sorted(run, key=by_identity), adapter]
            run = []
        else:
            run.append(adapter)
    return ordered + sorted(run, key=by_identity)
