from pathlib import Path

import onnx_ir as ir
import pytest

from passes.base import PassReport
from passes.cap_versions import CapVersionsPass
from passes.weights import weight_places
from tests.passes.graphs import (
    assert_equal,
    names,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    to_bytes,
    write_weights,
)

NEWER = '<ir_version: 11, opset_import: ["" : 23]>'
LAYER = """
layer (float[2,4] x) => (float[6,1] y)
<float[4,3] W = WEIGHT, float[3] b = WEIGHT, int64[2] s = {6, -1}>
{
    [product] a = MatMul(x, W)
    [sum] c = Add(a, b)
    [last] y = Reshape(c, s)
}"""


def cap(model: ir.Model, ir_version: int, opset: int) -> PassReport:
    """Run the pass, and see to it that a second run finds nothing to do."""
    one = CapVersionsPass(ir_version=ir_version, opset=opset)
    one(model)
    after = to_bytes(model)
    assert not CapVersionsPass(ir_version=ir_version, opset=opset)(model).modified
    assert to_bytes(model) == after
    return one.report


def versions(model: ir.Model) -> tuple[int, int]:
    return model.ir_version, model.opset_imports[""]


def test_newer_versions_are_lowered_and_nothing_else_changes(tmp_path: Path) -> None:
    model = parse(LAYER, NEWER)
    write_weights(model, tmp_path, random_weights(model))
    inputs, places = random_inputs(model), weight_places(model)
    before = run(model, inputs, tmp_path)
    assert cap(model, ir_version=9, opset=18).fired == 2
    assert versions(model) == (9, 18)
    assert operators(model) == ["MatMul", "Add", "Reshape"]
    assert [node.name for node in model.graph] == ["product", "sum", "last"]
    assert names(model.graph.inputs) == ["x"]
    assert model.graph[0].outputs[0].shape == ir.Shape([2, 3])
    assert weight_places(model) == places
    assert_equal(run(model, inputs, tmp_path), before)


def test_an_operator_that_was_written_otherwise_is_rewritten() -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,1] y) <int64[1] axes = {1}> { y = ReduceMean(x, axes) }"
    )
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert cap(model, ir_version=10, opset=17).fired == 1
    assert versions(model) == (10, 17)
    assert model.graph[0].attributes["axes"].as_ints() == (1,)
    assert_equal(run(model, inputs), before)


def test_a_newer_ir_version_alone_is_written_down() -> None:
    model = parse(LAYER)
    assert cap(model, ir_version=9, opset=18).fired == 1
    assert versions(model) == (9, 18)


@pytest.mark.parametrize(("ir_version", "opset"), [(10, 18), (11, 23)])
def test_versions_at_or_below_the_cap_stay(ir_version: int, opset: int) -> None:
    model = parse(LAYER)
    before = to_bytes(model)
    assert cap(model, ir_version, opset) == PassReport("cap-versions")
    assert to_bytes(model) == before


def test_operators_of_other_domains_keep_their_version() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) { a = vendor.Thing(x) y = Relu(a) }",
        '<ir_version: 11, opset_import: ["" : 23, "vendor" : 3]>',
    )
    cap(model, ir_version=9, opset=18)
    assert dict(model.opset_imports) == {"": 18, "vendor": 3}


def test_it_refuses_what_the_older_opset_cannot_say_and_keeps_the_weights() -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,4] y) <float[4] s = WEIGHT> { y = RMSNormalization(x, s) }",
        NEWER,
    )
    places = weight_places(model)
    with pytest.raises(RuntimeError, match="RMSNormalization"):
        CapVersionsPass(ir_version=9, opset=18)(model)
    assert weight_places(model) == places
    assert names(model.graph.inputs) == ["x"]
