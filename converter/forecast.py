"""What an export would write and cost, told from headers alone: nothing is traced or read.

The constants were measured on two cores of 2020s server hardware with this command line, wall
seconds and largest process (README, "Measured"; `benchmarks/plan.py` compares again):

    full-size SD1.5, float16 file: 4.27 GB written in 10.9 s with 0.28 GB; again, all reused: 2.1 s
    the miniature, 1,126 tensors: 2.2 s of processor time, 0.14 GB
    tracing a template (meta device, dynamic sizes), processor time and peak: text encoders of 196
    and 517 tensors 12 and 20 s; VAE halves of 108 and 140 tensors 11 to 14 s; UNets of 686 and
    1,680 tensors 57 to 106 s, 0.69 to 0.85 GB, and 341 s, 0.86 GB
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from converter.bundle import GRAPH_FILE, Bundle, BundleComponent
from converter.checkpoint import element_bytes
from converter.cost import Cost
from converter.errors import InputError
from converter.families.rules import TensorRule
from converter.files import known_blake3
from converter.graph_record import GraphRecord, find_record
from converter.merged import BLOCK, MergedWeights
from converter.profiles import InterfaceProfile
from converter.source import Source
from converter.stream import file_size
from converter.template import find_template
from passes.weights import ALIGNMENT, WEIGHTS_FILE

BASE_MEMORY = 120e6
"""Bytes of the program itself while it exports."""
MEMORY_PER_TENSOR = 15e3
"""Bytes of graphs held in memory, per weight of all components (1,130 and 2,623 tensors)."""
SECONDS_PER_TENSOR = 0.8e-3
"""Reading the graph, giving it the profile's ports, writing it."""
SECONDS_PER_BYTE = 2.05e-9
"""Reading, casting and writing weights, per byte written."""
GRAPH_BYTES_PER_TENSOR = 700
"""Of a graph's file. SD1.5: 540 to 650, SDXL: 530 to 700."""

TRACING_SECONDS = (9.0, 1.2e-4)
"""At no tensors, and per tensor squared: the exporter's optimiser looks at pairs of nodes."""
TRACING_MEMORY = (650e6, 0.2e6)
"""Bytes at no tensors, and per tensor."""


@dataclass(frozen=True)
class ComponentForecast:
    """One component of an export that has not been run.

    `record` is the bundle's, with empty hashes where nothing here knows them yet; `tensors` is
    the number of its weights. `tracing` is the cost of making its template, None where that
    ships or lies in the cache. `done`: the bundle in the output folder holds it already.
    """

    record: BundleComponent
    tensors: int
    tracing: Cost | None
    cost: Cost
    done: bool


def forecast(
    source: Source, profile: InterfaceProfile, folder: Path
) -> tuple[ComponentForecast, ...]:
    """Forecast every component of `source` for an export without adapters into `folder`."""
    known = {file: known_blake3(file) for file in source.files}
    contents = {file: digest for file, digest in known.items() if digest is not None}
    every = sum(len(_needed(source, c)) for c in source.components)
    memory = round(BASE_MEMORY + MEMORY_PER_TENSOR * every)
    before = _whole_records(folder)
    residual_ports = profile.residual_ports(source.architecture)
    forecasts = []
    for component in source.components:
        ports = profile.interface(component, source.architecture)
        path, key = find_template(component, source.architecture, residual_ports=residual_ports)
        graph = find_record(key, ports)
        needed = _needed(source, component)
        record = BundleComponent(
            name=component,
            graph=f"{component}/{GRAPH_FILE}",
            weights=f"{component}/{WEIGHTS_FILE}",
            interface=ports,
            graph_sha256="" if graph is None else graph.sha256,
            weights_key=_weights_key(component, source, contents, graph),
            weights_bytes=_file_bytes(needed) if graph is None else file_size(graph.places),
            parameters=sum(math.prod(rule.shape) for rule in needed),
            template_key=key,
        )
        done = record.weights_key != "" and before.get(component) == record
        cost = Cost(memory, seconds=SECONDS_PER_TENSOR * len(needed))
        if not done:
            graph_bytes = GRAPH_BYTES_PER_TENSOR * len(needed) if graph is None else graph.nbytes
            cost = Cost(
                memory=memory + _in_flight(needed, source),
                written=record.weights_bytes + graph_bytes,
                seconds=cost.seconds + SECONDS_PER_BYTE * record.weights_bytes,
            )
        tracing = _tracing(len(needed)) if path is None else None
        forecasts.append(ComponentForecast(record, len(needed), tracing, cost, done))
    return tuple(forecasts)


def _weights_key(
    component: str, source: Source, contents: Mapping[Path, str], graph: GraphRecord | None
) -> str:
    """The key that an export without adapters would give the weights; "" where it is not known."""
    if graph is None or any(file not in contents for file in source.files):
        return ""
    try:
        table = source.tables[component]
        file, places = source.model.file, graph.places
        return MergedWeights(component, file, contents, table, places, (), {}).key
    except InputError:
        return ""  # a record of another version


def _needed(source: Source, component: str) -> list[TensorRule]:
    return [rule for rule in source.tables[component] if rule.needed]


def _file_bytes(needed: Sequence[TensorRule]) -> int:
    """Bytes of the weights file, up to the padding behind its last tensor."""
    return sum(-(-4 * math.prod(rule.shape) // ALIGNMENT) * ALIGNMENT for rule in needed)


def _in_flight(needed: Sequence[TensorRule], source: Source) -> int:
    """Bytes of the two neighbours in the file that are largest together: stored, a block cast."""
    file = source.model.file
    ordered = sorted(needed, key=lambda rule: file.position(rule.source))
    held = [
        size * element_bytes(file.tensors[rule.source].dtype) + 4 * min(size, BLOCK)
        for rule in ordered
        if (size := math.prod(rule.shape))
    ]
    return max((a + b for a, b in pairwise(held)), default=0)


def _tracing(tensors: int) -> Cost:
    fixed, quadratic = TRACING_SECONDS
    base, each = TRACING_MEMORY
    return Cost(memory=round(base + each * tensors), seconds=fixed + quadratic * tensors**2)


def _whole_records(folder: Path) -> Mapping[str, BundleComponent]:
    """The components that a bundle in this folder holds, if one lies there whole."""
    try:
        return Bundle.load(folder).components
    except InputError:
        return {}
