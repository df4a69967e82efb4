"""A bundle's weights against the files that they were made from, computed once more in float64.

Artifact and reference share the bundle's weights, so nothing that went wrong on the way into the
bundle can show between them. Here every tensor is derived again by another way: names are those of
diffusers' converters, LoRAs are multiplied out by `validate.exported.low_rank`, and nothing is
rounded. Only the containers are opened, and adapters of other kinds computed, by the exporter's own
code; of the latter the report says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converter.adapters.adapter import Adapter
from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.embeddings.embedding import appended_rows
from converter.errors import InputError
from converter.export import ExportRequest, as_requested, requested_adapters
from converter.export_record import export_request
from converter.files import blake3_of
from converter.profiles import get_profile
from converter.source import Source, open_source
from converter.weights import Array
from passes.weights import TRANSPOSED
from validate.base import Measurement
from validate.exported.low_rank import LowRank, low_rank_modules, module_of
from validate.exported.names import Stored, stored_tensors
from validate.metrics import measure

SAME = 1e-6
"""Largest difference, of a tensor's peak: rounding once to float32 leaves 6e-8."""


AT_ONCE = 1 << 22
"""Elements that are compared at a time."""


class LackingError(InputError):
    """The sources are not there as they were: nothing can be derived from them."""


@dataclass(frozen=True)
class Origins:
    """The files a bundle was made from, opened again."""

    request: ExportRequest
    source: Source
    adapters: Sequence[Adapter]


@dataclass
class Derived:
    """What came of comparing the tensors of a component.

    `different` maps tensors to their measurements and the words for what they are. `own` names the
    kinds of adapters that the exporter's own formula stands for, `products` the inner products of
    the adapters' changes with each other and with what the bundle's weights changed.
    """

    count: int = 0
    largest: float = 0.0
    different: dict[str, tuple[Measurement, str]] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    products: Array = field(default_factory=lambda: np.zeros((0, 1)))

    @property
    def scales(self) -> list[float]:
        """How much of the change that was asked for each adapter made, by least squares.

        1 where it is merged as it should be, and where it changes nothing here.
        """
        found, wanted = self.products[:, :-1], self.products[:, -1]
        active = np.flatnonzero(found.diagonal())
        solved = np.ones(len(wanted))
        if len(active):
            system = found[np.ix_(active, active)]
            solved[active] = np.linalg.lstsq(system, wanted[active], rcond=None)[0]
        return [float(value) for value in solved]


def open_origins(bundle: Bundle) -> Origins:
    """Open a bundle's sources; raises LackingError where they are not as they were."""
    if not bundle.recipe:
        raise LackingError("the bundle does not say what it was made from: export it again")
    for record in (*bundle.sources, *bundle.adapters, *bundle.embeddings):
        path = Path(record["path"])
        if not path.exists():
            raise LackingError(f"{path} is not there")
        if path.is_file() and blake3_of(path) != record["blake3"]:
            raise LackingError(f"{path} has changed since")
    request = export_request(bundle.recipe, bundle.folder)
    profile = get_profile(bundle.profile)
    source = open_source(request.files, profile, request.components, request.clip_skip)
    source = as_requested(source, request)
    return Origins(request, source, requested_adapters(source, request))


def facts(bundle: Bundle, origins: Origins) -> list[str]:
    """What `bundle.json` says of the model and the files do not, one line each."""
    wanted = origins.source.architecture.to_json()
    found = Architecture.from_json(bundle.architecture).to_json()
    wrong = [
        f"bundle.json says {name} {got}, the files say {expected}"
        for name, got, expected in _differences("", found, wanted)
    ]
    prediction = origins.source.prediction
    said = (bundle.prediction_type, bundle.zero_terminal_snr)
    if said != (prediction.type, prediction.zero_terminal_snr):
        wrong.append(
            f"bundle.json says prediction {said[0]}, zero terminal SNR {said[1]}; the files say "
            f"{prediction.type}, {prediction.zero_terminal_snr}"
        )
    return wrong


def derive(bundle: Bundle, component: str, origins: Origins) -> Derived:
    """Compare every tensor of a component with what its sources give.

    Raises InputError for a tensor that no source is known for.
    """
    source, weights = origins.source, bundle.weights(component)
    stored = stored_tensors(component, source.architecture, source.model.file.tensors)
    changes = _Changes(component, origins)
    appended = appended_rows(source.embeddings, component)
    derived = Derived(products=np.zeros((len(origins.adapters), len(origins.adapters) + 1)))
    for name in weights.names():
        module_name = name.removesuffix(TRANSPOSED)
        if module_name not in stored:
            raise InputError(f"{component}: diffusers' converter knows no source of {module_name}")
        place = stored[module_name]
        base = place.take(source.model.file.read(place.key))
        found = _upright(weights.read(name), name, base.shape, appended.get(name))
        parts = list(changes.of(module_name, place, base, derived))
        _compare(derived, module_name, found, base, parts)
        source.model.file.release(place.key)
        weights.forget(name)
    return derived


class _Changes:
    """What the adapters do to the tensors of one component, scaled."""

    def __init__(self, component: str, origins: Origins) -> None:
        self._component = component
        self._adapters = origins.adapters
        self._low_rank: list[Mapping[str, LowRank]] = [
            low_rank_modules(adapter.file) for adapter in origins.adapters
        ]

    def of(
        self, name: str, place: Stored, base: Array, derived: Derived
    ) -> Iterator[tuple[int, Array]]:
        """The index and change of each adapter that changes a tensor."""
        merged: Array | None = None
        for index, adapter in enumerate(self._adapters):
            known = adapter.active(self._component).get(name)
            factors = module_of(self._component, name, place.key, self._low_rank[index])
            plain = known is None or (known.kind.name == "LoRA" and known.dora is None)
            if factors is not None and plain and "mid" not in (known.keys if known else ()):
                module = name.rpartition(".")[0]
                scale = adapter.choice.scale_of(self._component, f"{module}.")
                strength = 1.0 if known is None else known.strength
                change = scale * factors.change(adapter.file, strength).reshape(base.shape)
            elif known is not None:
                derived.own[known.kind.name] = derived.own.get(known.kind.name, 0) + 1
                merged = base.astype(np.float64) if merged is None else merged
                change = known.of(merged, adapter.file)
            else:
                continue
            merged = (base.astype(np.float64) if merged is None else merged) + change
            yield index, change


def _upright(stored: Array, name: str, shape: tuple[int, ...], appended: object) -> Array:
    """A bundle's tensor as the module has it, without rows that embeddings add."""
    values = stored.T if name.endswith(TRANSPOSED) else stored
    if appended is not None:
        values = values[: shape[0]]
    return values.reshape(shape)


def _compare(
    derived: Derived, name: str, found: Array, base: Array, parts: Sequence[tuple[int, Array]]
) -> None:
    derived.count += 1
    error = peak = 0.0
    for rows in _blocks(base):
        expected = base[rows].astype(np.float64)
        moved = found[rows] - expected
        for index, change in parts:
            expected += change[rows]
            mine = change[rows].ravel()
            derived.products[index, -1] += mine @ moved.ravel()
            for other, against in parts:
                derived.products[index, other] += mine @ against[rows].ravel()
        # The maximum of numpy, because that of Python forgets NaN.
        error = float(np.maximum(error, np.abs(found[rows] - expected).max(initial=0.0)))
        peak = max(peak, float(np.abs(expected).max(initial=0.0)))
    error /= peak or 1.0
    derived.largest = max(derived.largest, error)
    if not error <= SAME:
        expected = sum((change for _, change in parts), start=base.astype(np.float64))
        derived.different[name] = measure(found, expected), _words(found, expected, base)


def _blocks(values: Array) -> Iterator[slice | tuple[()]]:
    """Slices of rows with a few million elements each: a large embedding is not held in float64."""
    if not values.ndim:
        yield ()
        return
    rows = max(1, AT_ONCE * len(values) // max(1, values.size))
    for first in range(0, len(values), rows):
        yield slice(first, first + rows)


def _words(found: Array, expected: Array, base: Array) -> str:
    """What a wrong tensor is, in words, where that can be told."""
    rows, wanted = (a.reshape(len(a), -1) if a.ndim else a.reshape(1, 1) for a in (found, expected))
    same = np.abs(rows - wanted).max(axis=1) <= SAME * np.abs(wanted).max()
    wrong = np.flatnonzero(~same)
    if len(wrong) == 2:
        one, other = wrong
        swapped = np.abs(rows[[other, one]] - wanted[[one, other]]).max()
        if swapped <= SAME * np.abs(wanted).max():
            return f"rows {one} and {other} are exchanged"
    if not np.allclose(base, expected, rtol=0, atol=0) and np.abs(found - base).max() <= (
        SAME * np.abs(base).max()
    ):
        return "no adapter is merged into it"
    gain = float(rows.ravel() @ wanted.ravel()) / float(wanted.ravel() @ wanted.ravel() or 1.0)
    if np.abs(rows - gain * wanted).max() <= 10 * SAME * np.abs(wanted).max():
        return f"it is {gain:.4g} times what its sources give"
    return f"{len(wrong)} of its {len(rows)} rows differ"


def _differences(path: str, found: object, wanted: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in dict.fromkeys((*found, *wanted)):
            below = f"{path}.{name}" if path else str(name)
            yield from _differences(below, found.get(name), wanted.get(name))
    elif found != wanted:
        yield path, found, wanted
