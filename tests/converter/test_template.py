"""Shipped templates: found without torch, and the same as a fresh trace makes."""

import collections
import itertools

import onnx_ir as ir
import pytest

from converter.components import COMPONENTS, rules
from converter.families.published import SD15
from converter.template import SHIPPED, load_template
from converter.tracing import trace
from passes.weights import TRANSPOSED, weight_places

VARIANTS = [(component, False) for component in COMPONENTS] + [("unet", True)]


@pytest.mark.parametrize(("component", "ports"), VARIANTS)
def test_full_size_templates_ship_with_every_weight_of_the_family(
    component: str, ports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.tracing.trace", None)  # tracing would fail
    model, _ = load_template(component, SD15, residual_ports=ports)
    table = {r.name: r.shape for r in rules(component, SD15)}
    places = weight_places(model)
    assert {name.removesuffix(TRANSPOSED) for name in places} == set(table)
    for name, place in places.items():
        shape = table[name.removesuffix(TRANSPOSED)]
        wanted = shape[::-1] if name.endswith(TRANSPOSED) else shape
        assert [n for n in place.shape if n != 1] == [n for n in wanted if n != 1]
    ends = sorted((p.offset, p.offset + p.nbytes) for p in places.values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))


def test_nothing_stale_ships() -> None:
    assert len(list(SHIPPED.glob("*.onnx.xz"))) == len(VARIANTS)


def test_templates_weigh_little() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.onnx.xz")) < 200_000


def described(model: ir.Model) -> tuple[object, ...]:
    operators = collections.Counter(node.op_type for node in model.graph)
    ports = [(v.name, str(v.shape), v.dtype) for v in (*model.graph.inputs, *model.graph.outputs)]
    return operators, ports, weight_places(model), [node.name for node in model.graph]


@pytest.mark.slow
@pytest.mark.parametrize("component", ["text_encoder", "vae_decoder"])
def test_a_fresh_trace_is_the_shipped_template(component: str) -> None:
    shipped, _ = load_template(component, SD15, residual_ports=False)
    assert described(trace(component, SD15, residual_ports=False)) == described(shipped)
