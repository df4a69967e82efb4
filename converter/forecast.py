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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from converter.adapters.adapter import Adapter
from converter.adapters.cost import merge_cost
from converter.bundle import GRAPH_FILE, Bundle, BundleComponent
from converter.checkpoint import element_bytes
from converter.cost import Cost
from converter.embeddings.embedding import appended_rows
from converter.errors import InputError
from converter.families.rules import TensorRule
from converter.files import known_blake3
from converter.graph_record import GraphRecord, graph_record
from converter.interface_profile import InterfaceProfile
from converter.linking import linked_records
from converter.merged import BLOCK, AppendedRows, MergedWeights, is_stored
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
GRAPH_BYTES_PER_LINK = 215
"""Besides, of a weight that the graph reads where it is stored. SD1.5: 209 to 245."""

TRACING_SECONDS = (9.0, 1.2e-4)
"""At no tensors, and per tensor squared: the exporter's optimiser looks at pairs of nodes."""
TRACING_MEMORY = (650e6, 0.2e6)
"""Bytes at no tensors, and per tensor."""


@dataclass(frozen=True)
class ComponentForecast:
    """One component of an export that has not been run.

    `record` is the bundle's, with empty hashes where nothing here knows them yet; its
    `weights_bytes` are those of all weights in float32, also where the bundle links them.
    `tensors` is the number of weights, `largest` the bytes of the largest, `matrices` the number of
    parameters that are in matrices which activations are multiplied by. `tracing` is the cost of
    making the template, None where that ships or lies in the cache. `done`: the bundle in the
    output folder holds it already.
    `gathering` is the cost of writing linked weights to one file, None where they are not linked.
    """

    record: BundleComponent
    tensors: int
    largest: int
    tracing: Cost | None
    cost: Cost
    done: bool
    gathering: Cost | None = None
    matrices: int = 0


@dataclass(frozen=True)
class _Forecaster:
    """What all components of one export have in common."""

    source: Source
    profile: InterfaceProfile
    adapters: Sequence[Adapter]
    linked: bool
    before: Mapping[str, BundleComponent]
    contents: Mapping[Path, str] | None
    """Hashes of the files; None unless those of all are remembered."""

    def forecast(self, component: str, memory: int) -> ComponentForecast:
        """Forecast one component; `memory` are the bytes of the program and of all graphs."""
        source, architecture = self.source, self.source.architecture
        ports = self.profile.interface(component, architecture)
        residual_ports = self.profile.residual_ports(architecture)
        path, key = find_template(component, architecture, residual_ports=residual_ports)
        graph = None if path is None else graph_record(component, self.profile, architecture, key)
        needed = _needed(source, component)
        appended = appended_rows(source.embeddings, component)
        added = {name: rows.rows.size for name, rows in appended.items()}
        sizes = {rule.name: math.prod(rule.shape) + added.get(rule.name, 0) for rule in needed}
        record = BundleComponent(
            name=component,
            graph=f"{component}/{GRAPH_FILE}",
            weights=f"{component}/{WEIGHTS_FILE}",
            interface=ports,
            graph_sha256="" if graph is None else graph.sha256,
            weights_key="" if graph is None else self._weights_key(component, graph, appended),
            weights_bytes=_file_bytes(sizes.values()) if graph is None else file_size(graph.places),
            parameters=sum(sizes.values()),
            template_key=key,
        )
        done = self._is_there(record)
        cost = Cost(memory, seconds=SECONDS_PER_TENSOR * len(needed))
        if not done:
            merges = [merge_cost(adapter, component, needed) for adapter in self.adapters]
            todo, written = needed, record.weights_bytes
            if self.linked:
                todo = [rule for rule in needed if self._is_computed(component, rule, added)]
                written = _file_bytes(sizes[rule.name] for rule in todo)
            nbytes = GRAPH_BYTES_PER_TENSOR * len(needed) if graph is None else graph.nbytes
            nbytes += GRAPH_BYTES_PER_LINK * (len(needed) - len(todo))
            held = [_in_flight(todo, source), *(merge.memory for merge in merges)]
            seconds = SECONDS_PER_BYTE * written + sum(merge.seconds for merge in merges)
            cost = Cost(memory + max(held), written + nbytes, seconds=cost.seconds + seconds)
        gathering = None
        if self.linked:
            two = 4 * sum(sorted(sizes.values())[-2:])  # whole tensors, two at a time
            count = record.weights_bytes
            gathering = Cost(memory + two, cached=count, seconds=SECONDS_PER_BYTE * count)
        tracing = _tracing(len(needed)) if path is None else None
        largest = 4 * max(sizes.values())
        matrices = sum(math.prod(rule.shape) for rule in needed if _is_matrix(rule))
        return ComponentForecast(
            record, len(needed), largest, tracing, cost, done, gathering, matrices
        )

    def _is_there(self, record: BundleComponent) -> bool:
        """Whether the output folder holds this component, linked or not as it is wanted."""
        earlier = self.before.get(record.name)
        if earlier is None or not record.weights_key or bool(earlier.linked) != self.linked:
            return False
        if self.linked:  # its graph and its own file are not those of the record
            record = replace(
                record,
                graph_sha256=earlier.graph_sha256,
                weights_bytes=earlier.weights_bytes,
                linked=earlier.linked,
            )
        return earlier == record

    def _is_computed(self, component: str, rule: TensorRule, added: Collection[str]) -> bool:
        """Whether no file holds this tensor as it will be: see `MergedWeights.link`."""
        adapted = any(rule.name in adapter.active(component) for adapter in self.adapters)
        stored = self.source.model.file.tensors[rule.source]
        return adapted or rule.name in added or not is_stored(rule, stored)

    def _weights_key(
        self, component: str, graph: GraphRecord, appended: Mapping[str, AppendedRows]
    ) -> str:
        """The key that the export would give the weights; "" where it is not known."""
        if self.contents is None:
            return ""
        table, file = self.source.tables[component], self.source.model.file
        try:
            return MergedWeights(
                component, file, self.contents, table, graph.places, self.adapters, appended
            ).key
        except InputError:
            return ""  # a record of another version


def forecast(
    source: Source,
    profile: InterfaceProfile,
    folder: Path,
    adapters: Sequence[Adapter] = (),
    *,
    link: bool = False,
) -> tuple[ComponentForecast, ...]:
    """Forecast every component of `source` for an export with `adapters` into `folder`.

    Adapters and embeddings without a hash (`known_content`) are such as were never read. Raises
    InputError where `link` is wanted and the files lie on another disk.
    """
    known = {file: known_content(file) for file in source.files}
    added = [adapter.content for adapter in adapters] + [e.content for e in source.embeddings]
    added += [adapter.config for adapter in adapters if adapter.config is not None]
    if link:
        linked_records(source.files, folder)
    forecaster = _Forecaster(
        source=source,
        profile=profile,
        adapters=adapters,
        linked=link,
        before=_whole_records(folder),
        contents=known if all((*known.values(), *added)) else None,
    )
    every = sum(len(_needed(source, c)) for c in source.components)
    memory = round(BASE_MEMORY + MEMORY_PER_TENSOR * every)
    return tuple(forecaster.forecast(component, memory) for component in source.components)


def known_content(file: Path) -> str:
    """The hash of a file where it is remembered, so that the file need not be read; else ""."""
    return known_blake3(file) or ""


def _needed(source: Source, component: str) -> list[TensorRule]:
    return [rule for rule in source.tables[component] if rule.needed]


def _file_bytes(sizes: Iterable[int]) -> int:
    """Bytes of a weights file of tensors of these sizes, up to the padding behind the last."""
    return sum(-(-4 * size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _is_matrix(rule: TensorRule) -> bool:
    """Whether it is multiplied by; tables of embeddings are only looked up."""
    return len(rule.shape) == 2 and not rule.name.endswith("embedding.weight")


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
