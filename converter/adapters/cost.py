"""What merging an adapter costs, from the shapes in its header.

Measured on two cores with one thread, LoRAs of rank 4 to 128 on matrices of 0.1 to 13 million
elements and on a 3x3 convolution: 3.4 to 5 ns an element and up to 0.03 ns more for each rank, two
float64 copies of the tensor while it is merged (DoRA three) and one while it is written.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from converter.adapters.adapter import Adapter, TensorChange
from converter.families.rules import TensorRule

SECONDS_PER_ELEMENT = 4.5e-9
SECONDS_PER_RANK = 0.03e-9
"""Besides, per element and rank."""
COPIES = 3
"""Float64 copies of a merged tensor that exist at once; one more for a multiplicative change."""


@dataclass(frozen=True)
class MergeCost:
    """Bytes read of the adapter's file, bytes held at once, seconds, and how often: tensors."""

    read: int
    memory: int
    seconds: float
    tensors: int


def merge_cost(adapter: Adapter, component: str, rules: Iterable[TensorRule]) -> MergeCost:
    """Forecast the merge of one adapter into a component with these tensors."""
    active = adapter.active(component)
    changed = [(rule, active[rule.name]) for rule in rules if rule.name in active]
    held = ((COPIES + c.multiplicative) * 8 * math.prod(r.shape) for r, c in changed)
    tensors = adapter.file.tensors
    keys = {key for _, change in changed for key in _keys(change)}
    return MergeCost(
        read=sum(tensors[key].end - tensors[key].begin for key in keys),
        memory=max(held, default=0),
        seconds=sum(math.prod(r.shape) * _seconds_per_element(c) for r, c in changed),
        tensors=len(changed),
    )


def _seconds_per_element(change: TensorChange) -> float:
    return SECONDS_PER_ELEMENT + SECONDS_PER_RANK * (change.rank or 0)


def _keys(change: TensorChange) -> Iterator[str]:
    yield from change.keys.values()
    if change.dora is not None:
        yield change.dora[0]
