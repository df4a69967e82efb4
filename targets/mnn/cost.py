"""What compiling for MNN costs, from measurements of MNN 3.6.1 on two cores."""

from collections.abc import Iterable

from passes.weights import Place
from targets.mnn.precisions import Precision

MEMORY = 60e6
"""Bytes of the converter at no weights."""
FILTER_COPIES = 3.1
"""Times that it holds the filters of convolutions (four axes) in float32: in the graph before and
after a pass, and in what it reads."""
MATRIX_COPIES = 0.9
"""Likewise everything else, of which most waits in a file."""


def conversion_memory(places: Iterable[Place]) -> int:
    """Bytes of MNN's converter at its peak, for these weights."""
    held = sum(p.nbytes * (FILTER_COPIES if len(p.shape) == 4 else MATRIX_COPIES) for p in places)
    return round(MEMORY + held)


def temporary(places: Iterable[Place], precision: Precision) -> int:
    """Bytes in the cache folder while a skeleton is made: placeholders, matrices, the result."""
    sizes = [place.nbytes for place in places]
    return round(max(sizes, default=0) + sum(sizes) * (1 + precision.bits / 32))
