"""Every kind's promise: what it says fits can be merged, and no shapes make it raise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.adapters.base import Kind, Shape
from converter.adapters.registry import ENDINGS, KINDS

EXTENTS = st.lists(st.sampled_from([1, 2, 4]), max_size=4).map(tuple)
WEIGHTS = st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=4).map(tuple)
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=200)
@given(st.data())
def test_what_fits_can_be_merged(name: str, data: st.DataObject) -> None:
    kind: Kind = BY_NAME[name]
    weight = np.ones(data.draw(WEIGHTS))
    optional = set(kind.endings.values())
    needed = data.draw(st.sampled_from(kind.needs))
    extra = data.draw(st.sets(st.sampled_from(sorted(optional))))
    shapes: dict[str, Shape] = {part: data.draw(EXTENTS) for part in sorted(needed | extra)}
    assert kind.whole(shapes)
    if kind.fits(shapes, weight.shape):
        parts = {part: np.full(shape, 0.5) for part, shape in shapes.items()}
        change = kind.change(weight, parts)
        assert change.dtype == np.float64 and change.size == weight.size
        assert np.array_equal(weight, np.ones(weight.shape))  # not written to
        rank = kind.rank(shapes)
        assert rank is None or rank >= 1


def test_endings_are_looked_up_longest_first() -> None:
    lengths = [len(ending) for ending in ENDINGS]
    assert lengths == sorted(lengths, reverse=True)
    assert len(ENDINGS) == sum(len(kind.endings) for kind in KINDS) + 4  # and the shared ones
