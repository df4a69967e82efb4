"""What compiling for MNN costs, from measurements of MNN 3.6.1 on two cores."""

from collections.abc import Iterable, Sequence

from converter.cost import Cost
from converter.families.controlnet import kind_of
from passes.weights import Place
from targets.base import Workload
from targets.mnn.precisions import PRECISIONS, Precision

MEMORY = 60e6
"""Bytes of the converter at no weights."""
FILTER_COPIES = 3.1
"""Times that it holds the filters of convolutions (four axes) in float32: in the graph before and
after a pass, and in what it reads."""
MATRIX_COPIES = 0.9
"""Likewise everything else, of which most waits in a file."""

SKELETON_PER_TENSOR = 1.1e3
"""Bytes of a skeleton: the .mnn without weights, where they go, what the converter said."""

SECONDS = (2.0, 30e-9)
"""Of the converter: at no weights, and per byte of them in float32."""
BIND_MEMORY = (110e6, 3)
"""Bytes of this program, and how many of the largest tensors it holds at a time."""
BIND_SECONDS = (0.5, 3e-9)
"""At no weights, and per byte of them in float32: read, brought to fewer bits, hashed, written."""


def compile_cost(work: Workload) -> Cost:
    """One component, for all sizes that share its file: the converter from graph to skeleton."""
    filters = 4 * _filters(work)
    others = work.weights_bytes - filters
    return Cost(
        memory=_converting(filters, others),
        cached=round(SKELETON_PER_TENSOR * work.tensors),
        temporary=_temporary(work.largest, work.weights_bytes, PRECISIONS[work.job.precision]),
        seconds=SECONDS[0] + SECONDS[1] * work.weights_bytes,
    )


def bind_cost(works: Sequence[Workload]) -> Cost:
    """A model and the file of its weights: one, or one a size where that was asked for."""
    work, files = works[0], len(works) if works[0].job.static else 1
    return Cost(
        memory=round(BIND_MEMORY[0] + BIND_MEMORY[1] * work.largest),
        written=files * _stored(work),
        seconds=files * (BIND_SECONDS[0] + BIND_SECONDS[1] * work.weights_bytes),
    )


def _filters(work: Workload) -> int:
    """Parameters in filters of convolutions: what is no matrix, but in a text encoder's tables."""
    tables = kind_of(work.job.component).startswith("text_encoder")
    return 0 if tables else work.parameters - work.matrices


def _stored(work: Workload) -> int:
    precision, filters = PRECISIONS[work.job.precision], _filters(work)
    plain = precision.bits / 8
    others = 4 if precision.quantised else plain
    stored = precision.matrix_bytes * work.matrices
    # In most filters, nine times as many weights share a scale.
    stored += (plain + (precision.matrix_bytes - plain) / 9) * filters
    stored += others * (work.parameters - work.matrices - filters)
    return round(stored + SKELETON_PER_TENSOR * work.tensors)


def conversion_memory(places: Iterable[Place]) -> int:
    """Bytes of MNN's converter at its peak, for these weights."""
    filters = others = 0
    for place in places:
        if len(place.shape) == 4:
            filters += place.nbytes
        else:
            others += place.nbytes
    return _converting(filters, others)


def temporary(places: Iterable[Place], precision: Precision) -> int:
    """Bytes in the cache folder while a skeleton is made: placeholders, matrices, the result."""
    sizes = [place.nbytes for place in places]
    return _temporary(max(sizes, default=0), sum(sizes), precision)


def _converting(filters: int, others: int) -> int:
    return round(MEMORY + FILTER_COPIES * filters + MATRIX_COPIES * others)


def _temporary(largest: int, weights: int, precision: Precision) -> int:
    return round(largest + weights * (1 + precision.bits / 32))
