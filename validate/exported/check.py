"""The export level: whether a bundle is what its sources make it, and its graphs are general.

What was found out of the same graphs, weights and sources is kept in the cache folder, for every
folder of artifacts that was made from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from converter.bundle import Bundle
from converter.cache import content_key
from converter.errors import InputError
from converter.files import blake3_of
from converter.folders import cache_folder
from converter.progress import Event, Progress
from validate.base import Check, Judge, Level, Measurement, Result, Ruling, Verdict
from validate.exported.baked import Look, baked_checks
from validate.exported.origin import (
    SAME,
    Derived,
    Origins,
    derive,
    facts,
    open_origins,
)
from validate.references import References
from validate.store import RecordStore, measurement_from_json
from validate.verdicts import badness

VERSION = 1
"""Raise it when something else is checked than before."""

WEIGHTS, FACTS = "weights", "facts"
"""The cases besides those that graphs are looked at in."""

NAMED = 8
"""Tensors of a component that are listed with their numbers."""


def check_exports(
    bundle: Bundle,
    components: Sequence[str],
    references: References,
    judges: Mapping[Level, Judge],
    progress: Progress,
    *,
    run: bool = True,
) -> list[Result]:
    """Check these components of a bundle. Without `run` only what is known already is told.

    Raises InputError without torch.
    """
    try:
        origins: Origins | str = open_origins(bundle)
    except InputError as e:
        origins = str(e)
    results = []
    for component in components:
        store = _store(bundle, component, origins, judges)
        saved = store.load()
        if saved is None and run:
            progress(Event(f"check {component}", 0))
            checks = [
                *_origin_checks(bundle, component, origins),
                *_graph_checks(bundle, component, references, judges),
            ]
            saved = [_to_json(check) for check in checks]
            store.save(saved)
            worst = max(checks, key=badness)
            progress(Event(f"check {component}", 1, f"{component}: {worst.ruling.sentence}"))
        results.append(_result(bundle, component, saved, judges))
    return results


def _result(
    bundle: Bundle, component: str, saved: Any | None, judges: Mapping[Level, Judge]
) -> Result:
    checks = [_from_json(check) for check in saved or ()]
    if not checks:
        ruling = Ruling(Verdict.INCOMPLETE, "not checked: nothing is known of it as it is now")
        checks = [Check(WEIGHTS, "the bundle's weights", "every tensor", ruling)]
    return Result(
        component=component,
        target="export",
        chip=None,
        size=None,
        batch=1,
        precision="f32",
        level=Level.EXPORT,
        path=str(bundle.folder / bundle.components[component].graph),
        threshold=judges[Level.EXPORT].threshold(component, "f32"),
        checks=tuple(sorted(checks, key=badness, reverse=True)),
        note="",
    )


def _store(
    bundle: Bundle, component: str, origins: Origins | str, judges: Mapping[Level, Judge]
) -> RecordStore:
    """Where it is kept, named by everything that is looked at and asked for."""
    record = bundle.components[component]
    folder = (bundle.folder / record.graph).parent
    made_from = {
        "version": VERSION,
        "component": component,
        "graph": blake3_of(bundle.folder / record.graph),
        "weights": [blake3_of(folder / name) for name in _weight_files(bundle, component)],
        "architecture": bundle.architecture,
        "prediction": [bundle.prediction_type, bundle.zero_terminal_snr],
        "recipe": bundle.recipe,
        "sources": [
            [entry["path"], entry.get("blake3")] for entry in (*bundle.sources, *bundle.adapters)
        ],
        "asked": [asdict(judge.threshold(component, "f32")) for judge in judges.values()],
        "lacking": origins if isinstance(origins, str) else None,
        "others": {name: c.weights_key for name, c in bundle.components.items()},
    }
    key = content_key(made_from)
    return RecordStore(cache_folder() / "exports" / f"{key[:32]}.json", key)


def _weight_files(bundle: Bundle, component: str) -> list[str]:
    record = bundle.components[component]
    own = bundle.folder / record.weights
    return [*([own.name] if own.is_file() else []), *record.linked]


def _origin_checks(bundle: Bundle, component: str, origins: Origins | str) -> list[Check]:
    if isinstance(origins, str):
        sentence = f"not compared with what it was made from: {origins}"
        return [_check(WEIGHTS, "every tensor", Verdict.INCOMPLETE, sentence)]
    checks = [
        _check(FACTS, "bundle.json", Verdict.FAIL, sentence) for sentence in facts(bundle, origins)
    ]
    try:
        derived = derive(bundle, component, origins)
    except InputError as e:
        return [*checks, _check(WEIGHTS, "every tensor", Verdict.INCOMPLETE, str(e))]
    if not derived.different:
        sentence = _agreement(derived, origins)
        return [*checks, _check(WEIGHTS, "every tensor", Verdict.PASS, sentence)]
    return [*checks, *_differences(derived, origins)]


def _agreement(derived: Derived, origins: Origins) -> str:
    files = ", ".join(dict.fromkeys(path.name for path in _files(origins)))
    own = ", ".join(f"{count} of them by the exporter's own formula for {kind}"
                    for kind, count in derived.own.items())  # fmt: skip
    return (
        f"all {derived.count} tensors are what {files} give, computed once more in float64: "
        f"largest difference {derived.largest:.1e} of the peak ({SAME:.0e} allowed)"
        + (f"; {own}" if own else "")
    )


def _files(origins: Origins) -> list[Path]:
    return [*origins.source.files, *(adapter.choice.path for adapter in origins.adapters)]


def _differences(derived: Derived, origins: Origins) -> list[Check]:
    """The worst tensors; where a wrong scale of an adapter explains them, that is said first."""
    different = derived.different
    count = f"{len(different)} of {derived.count} tensors are not what their sources give"
    wrong = [
        f"{adapter.choice.path.name} is merged at {scale:.3g} of the scale asked for "
        f"({adapter.choice.scales})"
        for adapter, scale in zip(origins.adapters, derived.scales, strict=True)
        if abs(scale - 1) > 1e-3
    ]
    checks = []
    ordered = sorted(different.items(), key=lambda item: _closeness(item[1][0]))
    for name, (measurement, words) in ordered[:NAMED]:
        sentence = "; ".join((f"{name}: {words}", *wrong, count))
        checks.append(
            replace(_check(WEIGHTS, name, Verdict.FAIL, sentence), measurement=measurement)
        )
    return checks


def _closeness(measurement: Measurement) -> float:
    return -1.0 if measurement.agreement is None else measurement.agreement.psnr_db


def _graph_checks(
    bundle: Bundle, component: str, references: References, judges: Mapping[Level, Judge]
) -> list[Check]:
    look = Look.at(bundle, component, references)
    return [] if look is None else baked_checks(look, judges)


ABOUT = {
    WEIGHTS: "the bundle's weights against its sources",
    FACTS: "what the bundle says of the model",
}


def _check(case: str, output: str, verdict: Verdict, sentence: str) -> Check:
    return Check(case, ABOUT[case], output, Ruling(verdict, sentence))


def _to_json(check: Check) -> dict[str, Any]:
    measurement = None if check.measurement is None else asdict(check.measurement)
    return {
        "case": check.case,
        "about": check.about,
        "output": check.output,
        "verdict": check.ruling.verdict.value,
        "sentence": check.ruling.sentence,
        "measurement": measurement,
    }


def _from_json(data: Mapping[str, Any]) -> Check:
    measured = data["measurement"]
    return Check(
        data["case"],
        data["about"],
        data["output"],
        Ruling(Verdict(data["verdict"]), data["sentence"]),
        None if measured is None else measurement_from_json(measured),
    )
