"""The weight stream of an export: a checkpoint's tensors, renamed, merged, laid out, cast."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.adapters.adapter import Adapter
from converter.adapters.merge import Changes, Merger
from converter.cache import content_key
from converter.checkpoint import Checkpoint
from converter.errors import InputError
from converter.families.rules import TensorRule
from converter.weights import Array, TensorSpec
from passes.weights import TRANSPOSED, Place

STREAM_FORMAT = "1"
"""Raise it whenever the same sources would give other bytes."""


@dataclass(frozen=True)
class AppendedRows:
    """Rows behind a checkpoint's own: float32 [n, width], and the hashes of their files."""

    rows: Array
    contents: Sequence[str]


class MergedWeights:
    """A `WeightSource` over a checkpoint and adapters, in the layout of a template.

    Values are float32: read as stored, cut out of a fused tensor, widened, changed by the adapters,
    transposed where the graph wants the matrix so. Tensors that `appended` names end in its rows.
    The pages read are given back at once.
    """

    file: Path | None = None

    def __init__(
        self,
        component: str,
        checkpoint: Checkpoint,
        contents: Mapping[Path, str],
        rules: Sequence[TensorRule],
        places: Mapping[str, Place],
        adapters: Sequence[Adapter],
        appended: Mapping[str, AppendedRows],
    ) -> None:
        self._checkpoint = checkpoint
        self._places = places
        self._rules = {rule.name: rule for rule in rules if rule.needed}
        self._merger = Merger(component, adapters)
        self._appended = appended
        added = {name: more.rows.size for name, more in appended.items()}
        _check_complete(component, self._rules, places, added)
        self.key = content_key(
            {
                "stream format": STREAM_FORMAT,
                "component": component,
                "tensors": [
                    [name, *checkpoint.tensors[self._rule(name).source].content(contents)]
                    for name in sorted(places)
                ],
                "adapters": self._merger.identities,
                "layout": [[n, p.shape, p.dtype, p.offset] for n, p in sorted(places.items())],
                # Without any, the key is the one of before there were any.
                **{f"appended to {name}": more.contents for name, more in appended.items()},
            }
        )

    @property
    def changes(self) -> Changes:
        """The norms of what adapters changed in the tensors read so far."""
        return self._merger.norms

    def names(self) -> Sequence[str]:
        """Names in the order in which the files hold them: reading stays sequential."""
        return sorted(self._places, key=lambda n: self._checkpoint.position(self._rule(n).source))

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype in the graph."""
        place = self._places[name]
        return TensorSpec(place.shape, place.dtype)

    def read(self, name: str) -> Array:
        """The merged tensor in the graph's layout."""
        rule, place = self._rule(name), self._places[name]
        stored = rule.take(self._checkpoint.read(rule.source))
        stored = self._merger.merge(rule.name, stored)
        if name.endswith(TRANSPOSED):
            stored = stored.T
        out = np.empty(place.shape, place.dtype)
        own, added = np.split(out.reshape(-1), [stored.size])
        np.copyto(own.reshape(stored.shape), stored, casting="same_kind")
        if name in self._appended:
            np.copyto(added, self._appended[name].rows.reshape(-1))
        self._checkpoint.release(rule.source)
        return out

    def _rule(self, name: str) -> TensorRule:
        return self._rules[name.removesuffix(TRANSPOSED)]


def _check_complete(
    component: str,
    rules: Mapping[str, TensorRule],
    places: Mapping[str, Place],
    added: Mapping[str, int],
) -> None:
    wanted = {name.removesuffix(TRANSPOSED) for name in places}
    if wanted != rules.keys():
        odd = sorted(wanted ^ rules.keys())
        raise InputError(
            f"{component}: the template and the family's table disagree on {len(odd)} tensors "
            f"({', '.join(odd[:3])}...): the template is not this architecture's; "
            "delete it from the cache folder and export again"
        )
    for name, place in places.items():
        rule = rules[name.removesuffix(TRANSPOSED)]
        size = math.prod(rule.shape) + added.get(name, 0)
        if math.prod(place.shape) != size:
            raise InputError(f"{component}: {name} is {place.shape} in the template, {rule.shape}")
