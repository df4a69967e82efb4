"""Modules and values: of a right graph all are found, of a wrong one those that can be."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.bundle import Bundle
from examples.mini.faults import bake_timestep, edit_exported_graph
from targets.onnx_values import OnnxValues
from targets.torch_reference import TorchReference, open_reference
from validate.exported.scenes import probing_inputs
from validate.layers.probes import Probes, find_probes
from validate.layers.slices import slice_of, unused_inputs
from validate.references import References

EVERY_MODULE = {"text_encoder": 28, "unet": 621, "vae_encoder": 67, "vae_decoder": 95}
"""Those of the small model that torch runs. A text encoder's embedding of positions is a constant,
and no value of the graph."""


def probes_of(bundle: Bundle, component: str) -> tuple[Probes, TorchReference, OnnxValues]:
    reference = open_reference(bundle, component)
    graph = OnnxValues(bundle.folder / bundle.components[component].graph, as_written=True)
    with References(bundle) as references:
        inputs = probing_inputs(bundle, component, references)
    found = find_probes(graph, inputs, reference.layers(inputs), reference.kinds())
    return found, reference, graph


@pytest.mark.parametrize("component", EVERY_MODULE)
def test_every_module_that_torch_runs_is_a_value(component: str, small_bundle: Bundle) -> None:
    found, reference, graph = probes_of(small_bundle, component)
    assert found.matched == EVERY_MODULE[component]
    assert found.modules - found.matched == (1 if component == "text_encoder" else 0)
    assert not any(probe.by_weights for probe in found.places)
    places = [graph.values().index(probe.value) for probe in found.places]
    assert len(set(places)) == len(places)
    assert {probe.kind for probe in found.places} <= set(reference.kinds().values())


def test_behind_a_fault_weights_tell_the_module(small_bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(small_bundle.folder, tmp_path / "bundle"))
    spoilt = edit_exported_graph(Bundle.load(folder), "unet", bake_timestep)
    found, _, graph = probes_of(spoilt, "unet")
    by_weights = [probe.module for probe in found.places if probe.by_weights]
    assert "time_embedding.linear_1" in by_weights and "conv_out" in by_weights
    assert len(by_weights) > 300
    assert unused_inputs(graph.graph) == ["timestep"]
    first = next(p for p in found.places if p.module == "time_embedding.linear_1")
    slice_ = slice_of(ir.load(graph.graph), first.value, [])
    assert slice_.constants["example_timestep"] == "[981]"
    assert "time_embedding.linear_1.weight" in slice_.weights
    assert "timestep" not in slice_.inputs


def test_a_slice_ends_at_what_is_right(small_bundle: Bundle) -> None:
    found, _, graph = probes_of(small_bundle, "text_encoder")
    values = [probe.value for probe in found.places]
    model = ir.load(graph.graph)
    whole = slice_of(model, values[-1], [])
    last = slice_of(model, values[-1], values[:-1])
    assert len(last.nodes) < len(whole.nodes) / 10
    assert last.weights == ["final_layer_norm.bias", "final_layer_norm.weight"]


def test_zeros_match_nothing() -> None:
    class Zeros(OnnxValues):
        def __init__(self) -> None:
            self.graph = Path("unused")

    from validate.layers.probes import _equal

    zeros = np.zeros((2, 3), np.float32)
    assert _equal(zeros, [("value", zeros)]) is None
    ones = zeros + 1
    assert _equal(ones, [("zeros", zeros), ("ones", ones), ("again", ones)]) == "ones"
    assert _equal(np.full_like(ones, np.nan), [("nan", np.full_like(ones, np.nan))]) is None
