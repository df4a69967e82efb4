"""The weight stream of an export: a checkpoint's tensors, renamed, merged, laid out, cast."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.adapters.adapter import Adapter
from converter.adapters.merge import Changes, Merger
from converter.cache import content_key
from converter.checkpoint import DTYPES, Checkpoint, TensorInfo
from converter.errors import InputError
from converter.families.rules import TensorRule
from converter.weights import Array, TensorSpec
from passes.linked_weights import Link
from passes.weights import TRANSPOSED, Place

STREAM_FORMAT = "2"
"""Raise it whenever the same sources would give other bytes."""

WIDENED = ("F32", "F16", "BF16")
"""Stored dtypes that ONNX casts to float32 in every version of its operators."""

BLOCK = 1 << 22
"""Elements that are cast at once: a large embedding never exists whole in float32."""


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
        self.tensor_keys = self._tensor_keys(component, contents)
        self.key = content_key(self.tensor_keys)

    def _tensor_keys(self, component: str, contents: Mapping[Path, str]) -> dict[str, str]:
        """What the bytes of every tensor depend on, hashed; files differ where these differ."""
        layout = [[n, p.shape, p.dtype, p.offset] for n, p in sorted(self._places.items())]
        file = content_key(
            {"stream format": STREAM_FORMAT, "component": component, "layout": layout}
        )

        def key(name: str) -> str:
            rule = self._rule(name)
            stored = self._checkpoint.tensors[rule.source].content(contents)
            adapters = self._merger.depends_on(rule.name)
            made_from = {"file": file, "name": name, "stored": stored, "adapters": adapters}
            if name in self._appended:
                made_from["appended"] = self._appended[name].contents
            return content_key(made_from)[:32]

        return {name: key(name) for name in sorted(self._places)}

    @property
    def changes(self) -> Changes:
        """The norms of what adapters changed in the tensors read, or kept, so far."""
        return self._merger.norms

    def keep(self, keys: Mapping[str, str], earlier: Changes) -> list[str]:
        """The tensors, in reading order, that differ from a file with these tensor keys.

        `earlier` are the norms of its changes; those of the others are taken over.
        """
        for name in self._places:
            if keys.get(name) == self.tensor_keys[name]:
                self._merger.adopt(self._rule(name).name, earlier)
        return [name for name in self.names() if keys.get(name) != self.tensor_keys[name]]

    def names(self) -> Sequence[str]:
        """Names in the order in which the files hold them: reading stays sequential."""
        return sorted(self._places, key=lambda n: self._checkpoint.position(self._rule(n).source))

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype in the graph."""
        place = self._places[name]
        return TensorSpec(place.shape, place.dtype)

    def read(self, name: str) -> Array:
        """The merged tensor in the graph's layout."""
        return np.concatenate(list(self.blocks(name))).reshape(self._places[name].shape)

    def blocks(self, name: str) -> Iterator[Array]:
        """The tensor's rows, a few at a time: the elements of `read` in their order."""
        rule, place = self._rule(name), self._places[name]
        stored = rule.take(self._checkpoint.read(rule.source))
        stored = np.atleast_1d(self._merger.merge(rule.name, stored))
        if name.endswith(TRANSPOSED):
            stored = stored.T
        rows = max(1, BLOCK * len(stored) // max(1, stored.size))
        for first in range(0, len(stored), rows):
            block = stored[first : first + rows]
            yield block.astype(place.dtype, order="C", casting="same_kind", copy=False)
        self._checkpoint.release(rule.source)
        if name in self._appended:
            yield self._appended[name].rows

    def link(self, name: str) -> tuple[Path, Link] | None:
        """The file that holds this very tensor, and where; None for one that must be computed.

        Widening to float32 and transposing a matrix do not count as computing.
        """
        rule, place = self._rule(name), self._places[name]
        info = self._checkpoint.tensors[rule.source]
        index, count = rule.part
        transposed = rule.transposed != name.endswith(TRANSPOSED)
        computed = (
            not is_stored(rule, info)
            or name in self._appended
            or bool(self._merger.depends_on(rule.name))
            or (transposed and len(place.shape) != 2)
        )
        if computed:
            return None
        offset = info.begin + index * (info.end - info.begin) // count
        link = Link(info.file.name, offset, DTYPES[info.dtype].name, transposed)
        return info.file, link

    def _rule(self, name: str) -> TensorRule:
        return self._rules[name.removesuffix(TRANSPOSED)]


def is_stored(rule: TensorRule, info: TensorInfo) -> bool:
    """Whether a file holds the tensor itself, perhaps narrower or transposed, in one piece."""
    return (
        info.scale is None
        and len(info.terms) <= 1
        and info.strides is None
        and info.dtype in WIDENED
        and not (rule.transposed and rule.part[1] > 1)  # its part is columns there
    )


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
