"""The layer level: what networks hold inside, beside the modules of the torch reference.

The exported graph is looked into as well as every artifact that can be: where both part from torch
at the same place, the export is to blame, else the target.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converter.cache import content_key
from converter.errors import InputError
from converter.progress import Event
from converter.weights import Array
from targets.base import LayerRunner, ToolchainError
from targets.compile import job_of
from targets.one_file import in_one_file
from targets.onnx_values import OnnxValues
from targets.torch_reference import TorchReference
from validate.base import Check, Judge, Level, Measurement, Result, Ruling, Threshold, Verdict
from validate.exported.scenes import probing_inputs
from validate.layers.blame import parting
from validate.layers.probes import Probe, Probes, find_probes
from validate.layers.slices import unused_inputs
from validate.metrics import measure
from validate.plan import Group, Subject
from validate.references import References
from validate.run import Bench, run_reference
from validate.scenes import Scene
from validate.store import RecordStore, measurement_from_json
from validate.verdicts import badness

VERSION = 1
"""Raise it when something else is measured than before."""

AT_ONCE = 1 << 28
"""Elements of torch's tensors that are held at a time: a gigabyte."""

GRAPH_TARGET = "the exported graph"


@dataclass(frozen=True)
class Interior:
    """What is looked into: an artifact, or with `subject` None the exported graph of a group."""

    group: Group
    scene: Scene
    subject: Subject | None
    store: RecordStore

    @property
    def label(self) -> str:
        """In a user's words."""
        if self.subject is not None:
            return self.subject.label
        return " ".join(str(p) for p in (self.group.component, self.group.size) if p)


class LayerLevel:
    """Looks into networks; what was looked at before is not run again."""

    def __init__(self, references: References, bench: Bench | None, judge: Judge) -> None:
        """Without a bench nothing is run."""
        self._references = references
        self._bench = bench
        self._judge = judge

    def results(self, group: Group, scene: Scene, subjects: Sequence[Subject]) -> list[Result]:
        """The exported graph of a group, then these of its artifacts, in one case."""
        return [
            self._result(interior)
            for subject in (None, *subjects)
            if (interior := _interior(group, scene, subject)) is not None
        ]

    def _result(self, interior: Interior) -> Result:
        group, subject = interior.group, interior.subject
        precision = "f32" if subject is None else subject.artifact.precision
        threshold = self._judge.threshold(group.component, precision)
        record, missing = self._record(interior)
        checks = [] if record is None else list(self._checks(record, threshold))
        if not checks:
            checks = [Check(interior.scene.name, interior.scene.about, "every tensor", missing)]
        return Result(
            component=group.component,
            target=GRAPH_TARGET if subject is None else subject.artifact.target,
            chip=None if subject is None else subject.artifact.chip,
            size=group.size,
            batch=group.batch,
            precision=precision,
            level=Level.LAYER,
            path=f"{group.component}" if subject is None else subject.artifact.path,
            threshold=threshold,
            checks=tuple(sorted(checks, key=badness, reverse=True)),
            note="" if record is None else f"{record['about']}; {interior.scene.about}",
            blame=_blame(checks, record, threshold),
        )

    def _checks(self, record: Any, threshold: Threshold) -> Iterator[Check]:
        for position, row in enumerate(record["layers"]):
            measurement = measurement_from_json(row["measurement"])
            yield Check(
                case=row["module"],
                about=row["kind"],
                output=row["value"],
                ruling=self._judge.rule(measurement, threshold),
                measurement=measurement,
                position=position,
            )

    def _record(self, interior: Interior) -> tuple[Any | None, Ruling]:
        """What was measured, before or now; and the ruling where there is none."""
        saved = interior.store.load()
        if saved is not None or self._bench is None:
            return saved, _missing("nothing is saved of it as it is now")
        stage = f"look into {interior.label}"
        self._bench.progress(Event(stage, 0))
        why = "this target shows nothing of what is inside"
        try:
            saved = self._measure(interior)
        except (InputError, ToolchainError) as e:
            why = str(e)
        said = _missing(why).sentence
        if saved is not None:
            interior.store.save(saved)
            said = saved["about"]
        self._bench.progress(Event(stage, 1, f"{interior.label}: {said}"))
        return saved, _missing(why)

    def _measure(self, interior: Interior) -> dict[str, Any] | None:
        assert self._bench is not None
        component = interior.group.component
        reference = self._references.modules(component)
        if reference is None:
            return None
        runner = self._open(interior)
        if runner is None:
            return None
        with closing(runner):
            probes = self._found(interior.group, reference)
            run_reference([interior.scene], interior.group, self._references)
            inputs = interior.group.inputs.load(interior.scene.name)
            values = runner.layers(inputs, [probe.value for probe in probes.places])
            there = [probe for probe in probes.places if probe.value in values]
            rows = [
                {
                    "module": probe.module,
                    "kind": probe.kind,
                    "value": probe.value,
                    "measurement": asdict(measured),
                }
                for probe, measured in _compared(reference, inputs, there, values)
            ]
            idle = unused_inputs(runner.graph)
        about = f"{probes.sentence}, {len(rows)} of which this network has"
        return {"about": about, "layers": rows, "unused inputs": idle}

    def _open(self, interior: Interior) -> LayerRunner | None:
        assert self._bench is not None
        bundle, subject = self._bench.bundle, interior.subject
        component = bundle.components[interior.group.component]
        if subject is None:
            return OnnxValues(bundle.folder / component.graph, as_written=True)
        target = self._bench.open_target(subject.artifact.target)
        if subject.artifact.quantize_table is not None:
            raise InputError("its table of precisions would be needed")
        job = job_of(bundle, subject.artifact)
        weights = in_one_file(
            component.name, bundle.weights(component.name), job.graph, self._bench.progress
        )
        return target.open_layers(
            job, subject.artifact, self._bench.folder, weights, self._bench.progress
        )

    def _found(self, group: Group, reference: TorchReference) -> Probes:
        """Match modules and values at a small size, once: names do not depend on it."""
        assert self._bench is not None
        bundle, component = self._bench.bundle, group.component
        record = bundle.components[component]
        made_from = {
            "graph": record.graph_sha256,
            "weights": record.weights_key,
            "version": VERSION,
        }
        folder = group.reference.folder.parent.parent
        store = RecordStore(folder / f"{component}-probes.json", content_key(made_from))
        saved = store.load()
        if saved is not None:
            return Probes.from_json(saved)
        graph = OnnxValues(bundle.folder / record.graph, as_written=True)
        inputs = probing_inputs(bundle, component, self._references)
        seen = reference.layers(inputs)
        probes = find_probes(graph, inputs, seen, reference.kinds())
        store.save(asdict(probes))
        return probes


def _blame(checks: Sequence[Check], record: Any | None, threshold: Threshold) -> str:
    """Where it parts from torch, and which inputs nothing is computed of."""
    if record is None:
        return ""
    words = [parting([check for check in checks if check.position is not None], threshold)]
    words += [f"no node reads the input {name}" for name in record["unused inputs"]]
    return "; ".join(words)


def _missing(why: str) -> Ruling:
    return Ruling(Verdict.INCOMPLETE, f"not looked into: {why}")


def _compared(
    reference: TorchReference,
    inputs: Mapping[str, Array],
    probes: Sequence[Probe],
    values: Mapping[str, Array],
) -> Iterator[tuple[Probe, Measurement]]:
    """Compare in the order of computation, with as many of torch's tensors at a time as fit."""
    waiting: list[Probe] = []
    held = 0
    for index, probe in enumerate(probes):
        waiting.append(probe)
        held += values[probe.value].size
        if held < AT_ONCE and index < len(probes) - 1:
            continue
        modules = reference.layers(inputs, [p.module for p in waiting])
        for one in waiting:
            output, expected = np.asarray(values[one.value]), modules[one.module]
            if output.size == expected.size:  # a compiler may write extents of 1 otherwise
                output = output.reshape(expected.shape)
            yield one, measure(output, expected)
        waiting, held = [], 0


def _interior(group: Group, scene: Scene, subject: Subject | None) -> Interior | None:
    made_from = {"case": scene.name, "version": VERSION, "reference": group.reference.key}
    if subject is None:
        folder, key = group.reference.folder.parent, content_key(made_from)
        return Interior(group, scene, None, RecordStore(folder / f"layers-{scene.name}.json", key))
    outputs = subject.outputs
    key = content_key({**made_from, "artifact": outputs.key})
    path = outputs.folder.with_name(f"{outputs.folder.name}-layers-{scene.name}.json")
    return Interior(group, scene, subject, RecordStore(path, key))
