"""Shipped templates: found without torch, and the same as a fresh trace makes."""

import collections
import itertools
from dataclasses import replace

import onnx_ir as ir
import pytest

from converter.architecture import Architecture
from converter.cache import content_key
from converter.components import rules
from converter.families.published import SD2, SD15, SD15_UNET, SDXL
from converter.template import SHIPPED, SHIPPED_GRAPHS, load_template, template_inputs
from converter.tracing import trace
from passes.weights import TRANSPOSED, weight_places


@pytest.mark.parametrize(
    ("architecture", "component", "ports"),
    SHIPPED_GRAPHS,
    ids=[f"{a.family}-{c}{'-residuals' * p}" for a, c, p in SHIPPED_GRAPHS],
)
def test_full_size_templates_ship_with_every_weight_of_the_family(
    architecture: Architecture, component: str, ports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.tracing.trace", None)  # tracing would fail
    model, _ = load_template(component, architecture, residual_ports=ports)
    table = {r.name: r.shape for r in rules(component, architecture) if r.needed}
    places = weight_places(model)
    assert {name.removesuffix(TRANSPOSED) for name in places} == set(table)
    for name, place in places.items():
        shape = table[name.removesuffix(TRANSPOSED)]
        wanted = shape[::-1] if name.endswith(TRANSPOSED) else shape
        assert [n for n in place.shape if n != 1] == [n for n in wanted if n != 1]
    ends = sorted((p.offset, p.offset + p.nbytes) for p in places.values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))


def test_families_share_what_is_the_same() -> None:
    for component in ("vae_encoder", "vae_decoder"):
        keys = {load_template(component, a, residual_ports=False)[1] for a in (SD15, SD2, SDXL)}
        assert len(keys) == 1


def test_an_inpainting_unet_needs_no_template_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.tracing.trace", None)
    inpaint = replace(SD15, unet=replace(SD15_UNET, in_channels=9))
    plain, key = load_template("unet", SD15, residual_ports=False)
    wide, same = load_template("unet", inpaint, residual_ports=False)
    assert key == same
    assert wide.graph.inputs[0].shape == ir.Shape(["batch", 9, "height/8", "width/8"])
    assert weight_places(wide)["conv_in.weight"].shape == (320, 9, 3, 3)
    shapes = [{n: p.shape for n, p in weight_places(m).items()} for m in (plain, wide)]
    assert {n for n in shapes[0] if shapes[0][n] != shapes[1][n]} == {"conv_in.weight"}
    ends = sorted((p.offset, p.offset + p.nbytes) for p in weight_places(wide).values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))


def test_added_tokens_need_no_template_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.tracing.trace", None)
    assert SDXL.text_encoder_2 is not None
    longer = replace(SDXL, text_encoder_2=replace(SDXL.text_encoder_2, vocabulary=49410))
    plain, key = load_template("text_encoder_2", SDXL, residual_ports=False)
    wide, same = load_template("text_encoder_2", longer, residual_ports=False)
    assert key == same
    shapes = [{n: p.shape for n, p in weight_places(m).items()} for m in (plain, wide)]
    changed = {n: s for n, s in shapes[1].items() if s != shapes[0][n]}
    assert changed == {"embeddings.token_embedding.weight": (49410, 1280)}
    ends = sorted((p.offset, p.offset + p.nbytes) for p in weight_places(wide).values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    operators = [collections.Counter(node.op_type for node in m.graph) for m in (plain, wide)]
    assert operators[1] - operators[0] == {"Equal": 1, "Cast": 1}  # the end is looked for


def test_nothing_stale_ships() -> None:
    variants = {content_key(template_inputs(c, a, residual_ports=p)) for a, c, p in SHIPPED_GRAPHS}
    assert len(list(SHIPPED.glob("*.onnx.xz"))) == len(variants)


def test_templates_weigh_little() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.onnx.xz")) < 500_000


def described(model: ir.Model) -> tuple[object, ...]:
    operators = collections.Counter(node.op_type for node in model.graph)
    ports = [(v.name, str(v.shape), v.dtype) for v in (*model.graph.inputs, *model.graph.outputs)]
    return operators, ports, weight_places(model), [node.name for node in model.graph]


@pytest.mark.slow
@pytest.mark.parametrize("component", ["text_encoder", "vae_decoder"])
def test_a_fresh_trace_is_the_shipped_template(component: str) -> None:
    shipped, _ = load_template(component, SD15, residual_ports=False)
    assert described(trace(component, SD15, residual_ports=False)) == described(shipped)
