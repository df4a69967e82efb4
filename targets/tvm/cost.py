"""What TVM's targets cost, from measurements of TVM 0.27.0 (`benchmarks/adreno.md`)."""

from collections.abc import Sequence

from converter.cost import Cost
from targets.base import Workload

MEMORY = (0.28e9, 0.25e6)
"""Bytes of TVM at no tensors, and per tensor. Measured: 138 tensors 0.31 GB, 686 0.45 GB."""
SECONDS = {"cpu": (1.0, 0.033), "phone": (2.0, 0.047)}
"""Likewise of a processor, for libraries that run here, and for a phone's with their twins.
Measured: 686 tensors 24 and 34 s, 138 tensors 7 and 9 s."""
CACHED = (0.2e6, 6e3)
"""Likewise, bytes of a skeleton. Measured: 686 tensors 4 MB."""
RATE = {"cpu": 2e9, "phone": 5e9}
"""Operations a second: TVM's untuned loops, and CLML's graphs by numpy with these between."""


def compile_memory(tensors: int) -> int:
    """Bytes of TVM at its peak; no weight is among them."""
    return round(MEMORY[0] + MEMORY[1] * tensors)


def compile_cost(kind: str, work: Workload) -> Cost:
    """Only the size of the graph matters; `kind` is that of the libraries."""
    fixed, each = SECONDS[kind]
    return Cost(
        memory=compile_memory(work.tensors),
        cached=round(CACHED[0] + CACHED[1] * work.tensors),
        seconds=fixed + each * work.tensors,
    )


def bind_cost(works: Sequence[Workload]) -> Cost:
    """One file of parameters for all sizes, a tensor at a time."""
    work = works[0]
    written = work.weights_bytes // (2 if work.job.precision == "f16" else 1)
    return Cost(
        memory=round(60e6 + 2 * work.largest),
        written=written,
        seconds=0.3 + work.weights_bytes / 0.5e9,
    )


def run_cost(kind: str, operations: int) -> float:
    """Seconds of one run on this machine."""
    return operations / RATE[kind]
