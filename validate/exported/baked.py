"""The constant-bake lint: an exported graph at two sizes, times and batches, against torch.

A tracer that took an input for a constant leaves a graph that is right for the example that it was
traced with and wrong for all else. What is wrong is named: the constants that go into the first
value that parts from torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.profiles import get_profile
from converter.sizes import Size
from converter.template import load_template
from converter.weights import Array
from passes.linked_weights import read_graph
from targets.base import ToolchainError
from targets.onnx_values import OnnxValues
from targets.torch_reference import TorchReference
from validate.base import Check, Judge, Level, Ruling, Verdict
from validate.exported.scenes import SIZES, TALL, WIDE, probing_inputs, small_inputs
from validate.layers.probes import find_probes
from validate.layers.slices import Slice, describe, slice_of, unused_inputs
from validate.metrics import measure
from validate.references import References
from validate.scenes import Scene

NAMED = 4
"""How many constants a sentence names."""


@dataclass(frozen=True)
class View:
    """One way to look at a graph."""

    scene: Scene
    size: Size
    batch: int

    @property
    def name(self) -> str:
        """As a case."""
        return f"{self.scene.name}-{self.size}-b{self.batch}"


VIEWS = (View(WIDE, SIZES[0], 1), View(TALL, SIZES[1], 2))
"""No size, time or batch is that of the other."""


@dataclass(frozen=True)
class Look:
    """Everything that looking at one component's graph needs."""

    bundle: Bundle
    component: str
    references: References
    graph: OnnxValues
    reference: TorchReference

    @classmethod
    def at(cls, bundle: Bundle, component: str, references: References) -> "Look | None":
        """None where the reference is a stand-in without modules."""
        reference = references.modules(component)
        if reference is None:
            return None
        path: Path = bundle.folder / bundle.components[component].graph
        return cls(bundle, component, references, OnnxValues(path, as_written=True), reference)

    def inputs(self, view: View) -> Mapping[str, Array]:
        """What both are given."""
        return small_inputs(
            self.bundle, self.component, view.scene, view.size, view.batch, self.references
        )


def baked_checks(look: Look, judges: Mapping[Level, Judge]) -> list[Check]:
    """Every output in every view; where one is wrong, the sentence says what is baked."""
    checks = []
    for view in VIEWS:
        mine = list(_checks(look, view, judges[Level.EXPORT]))
        if any(check.ruling.verdict is Verdict.FAIL for check in mine):
            idle = [f"no node reads the input {name}" for name in unused_inputs(look.graph.graph)]
            why = "; ".join((*idle, *culprits(look, view, judges[Level.LAYER])))
            mine = [_explained(check, why) for check in mine]
        checks += mine
    return checks


def _checks(look: Look, view: View, judge: Judge) -> Iterator[Check]:
    threshold = judge.threshold(look.component, "f32")
    inputs = look.inputs(view)
    expected = look.references.infer(look.component, inputs)
    try:
        outputs = look.graph.infer(inputs)
    except ToolchainError as e:
        first = next(iter(expected))
        ruling = Ruling(Verdict.FAIL, f"the graph cannot be run: {_refused(look, str(e))}")
        yield Check(view.name, view.scene.about, first, ruling)
        return
    for name, wanted in expected.items():
        measurement = measure(outputs.get(name), wanted)
        ruling = judge.rule(measurement, threshold)
        yield Check(view.name, view.scene.about, name, ruling, measurement)


def _explained(check: Check, why: str) -> Check:
    if not why or check.ruling.verdict is not Verdict.FAIL:
        return check
    return replace(check, ruling=Ruling(Verdict.FAIL, f"{check.ruling.sentence}; {why}"))


def culprits(look: Look, view: View, judge: Judge) -> list[str]:
    """The first value that parts from torch in a view, and what was made of it since it agreed."""
    probing = probing_inputs(look.bundle, look.component, look.references)
    inputs = look.inputs(view)
    try:
        probes = find_probes(
            look.graph, probing, look.reference.layers(probing), look.reference.kinds()
        )
        values = look.graph.layers(inputs, [probe.value for probe in probes.places])
    except ToolchainError:  # a graph that cannot be run shows nothing of its inside
        return []
    modules = look.reference.layers(inputs, [probe.module for probe in probes.places])
    threshold = judge.threshold(look.component, "f32")
    right: list[str] = []
    for probe in probes.places:
        measurement = measure(values[probe.value], modules[probe.module])
        ruling = judge.rule(measurement, threshold)
        if ruling.verdict is Verdict.FAIL and measurement.peak:
            found = slice_of(read_graph(look.graph.graph), probe.value, right)
            return [f"it parts from torch at {probe.module} ({probe.kind})", *_named(look, found)]
        right.append(probe.value)
    return ["no value inside parts from torch before the output"]


def _named(look: Look, found: Slice) -> list[str]:
    """What goes into a wrong value: first what the architecture's template does not have."""
    known = _template_names(look)
    nodes = {v.name: n.op_type for n in found.nodes for v in n.outputs if v.name not in known}
    strange = {name: what for name, what in found.constants.items() if name not in known}
    if nodes or strange:
        listed = [f"{name} = {what}" for name, what in strange.items()]
        listed += [f"{name} ({kind})" for name, kind in nodes.items()]
        return [f"what goes into it and is not in this architecture's template: {_some(listed)}"]
    listed = [f"{name} = {what}" for name, what in found.constants.items()]
    return [f"constants that go into it: {_some(listed)}"] if listed else []


def _some(listed: Sequence[str]) -> str:
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more


def _template_names(look: Look) -> set[str | None]:
    """The values of the graph that the component's architecture gives, wherever it came from."""
    architecture = Architecture.from_json(look.bundle.architecture)
    ports = get_profile(look.bundle.profile).residual_ports(architecture)
    model, _ = load_template(look.component, architecture, residual_ports=ports)
    return {*model.graph.initializers, *(v.name for node in model.graph for v in node.outputs)}


def _refused(look: Look, message: str) -> str:
    """The runtime's own words, and the constants that the node reads which it names."""
    model = read_graph(look.graph.graph)
    for node in model.graph:
        if node.name and node.name in message:
            constants = {
                v.name: v.const_value for v in node.inputs if v is not None and v.const_value
            }
            read = [f"{name} = {describe(value)}" for name, value in constants.items()]
            what = f", which reads {', '.join(read)}" if read else ""
            return f"node {node.name} ({node.op_type}){what}"
    return message
