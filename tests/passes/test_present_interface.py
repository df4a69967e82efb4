from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import PreconditionError

from passes.base import PassReport
from passes.present_interface import PresentInterfacePass
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

ENCODER = """
encoder (int32[1,4] input_ids, float[1] scale) => (float[1,4,2] hidden, float[1,4,2] pooled)
<float[3,2] table = WEIGHT, float[2] W = WEIGHT>
{
    embedded = Gather(table, input_ids)
    hidden = Mul(embedded, scale)
    pooled = Mul(hidden, W)
}"""
SUM = """
sum (float[2] a, float[2] b) => (float[2] c, float[2] d)
{ inner = Neg(b) c = Add(a, inner) d = Mul(a, inner) }"""

Inputs = Mapping[str, tuple[str, str]]


def present(model: ir.Model, inputs: Inputs, outputs: Mapping[str, str]) -> PassReport:
    """Run the pass, and see to it that presenting what is presented changes nothing."""
    one = PresentInterfacePass(inputs, outputs)
    one(model)
    after = to_bytes(model)
    again = PresentInterfacePass(
        {port[0]: port for port in inputs.values()}, {name: name for name in outputs.values()}
    )
    assert not again(model).modified
    assert to_bytes(model) == after
    return one.report


def every_name(model: ir.Model) -> list[str]:
    outputs = [value for node in model.graph.all_nodes() for value in node.outputs]
    return names([*model.graph.inputs, *model.graph.initializers.values(), *outputs])


def floats(names: Sequence[str]) -> Inputs:
    """Give the inputs of `SUM` these names."""
    return {old: (new, "float32") for old, new in zip("ab", names, strict=False)}


def presented(inputs: Sequence[str], outputs: Mapping[str, str], fired: int) -> ir.Model:
    """Rename the ports of `SUM`; it fires so often, and the consumer gets the same values."""
    model = parse(SUM)
    values = random_inputs(model)
    before = run(model, values)
    report = present(model, floats(inputs), outputs)
    assert report == PassReport("present-interface", fired)
    assert names(model.graph.inputs) == list(inputs)
    assert len(set(every_name(model))) == len(every_name(model))
    found = run(model, dict(zip(inputs, values.values(), strict=True)))
    assert_equal(found, {new: before[old] for old, new in outputs.items()})
    return model


def test_ports_get_the_names_the_consumer_binds() -> None:
    presented(["sample", "text"], {"c": "noise_pred", "d": "other"}, fired=4)


def test_ports_that_have_their_names_stay() -> None:
    before = to_bytes(parse(SUM))
    model = presented(["a", "b"], {"c": "c", "d": "d"}, fired=0)
    assert to_bytes(model) == before


def test_outputs_come_in_the_order_asked_for() -> None:
    presented(["a", "b"], {"d": "d", "c": "c"}, fired=1)


def test_inputs_come_in_the_order_asked_for() -> None:
    model = parse(SUM)
    values = random_inputs(model)
    before = run(model, values)
    ports = {"b": ("second", "float32"), "a": ("a", "float32")}
    assert present(model, ports, {"c": "c", "d": "d"}).fired == 2
    assert names(model.graph.inputs) == ["second", "a"]
    assert_equal(run(model, {"second": values["b"], "a": values["a"]}), before)


def test_a_dropped_output_takes_what_only_it_needed_along(tmp_path: Path) -> None:
    model = parse(ENCODER)
    write_weights(model, tmp_path, random_weights(model))
    inputs = random_inputs(model)
    before = run(model, inputs, tmp_path)
    ports = {"input_ids": ("input_ids", "int32"), "scale": ("scale", "float32")}
    assert present(model, ports, {"hidden": "hidden"}).fired == 1
    assert operators(model) == ["Gather", "Mul"]
    assert list(weight_places(model)) == ["table"]
    assert_equal(run(model, inputs, tmp_path), {"hidden": before["hidden"]})


def test_an_input_of_another_dtype_is_cast_inside(tmp_path: Path) -> None:
    model = parse(ENCODER)
    write_weights(model, tmp_path, random_weights(model))
    inputs, places = random_inputs(model), weight_places(model)
    before = run(model, inputs, tmp_path)
    ports = {"input_ids": ("tokens", "int64"), "scale": ("scale", "float32")}
    assert present(model, ports, {"hidden": "hidden", "pooled": "pooled"}).fired == 2
    assert operators(model) == ["Cast", "Gather", "Mul", "Mul"]
    assert model.graph.inputs[0].dtype == ir.DataType.INT64
    assert weight_places(model) == places
    values = {"tokens": inputs["input_ids"].astype(np.int64), "scale": inputs["scale"]}
    assert_equal(run(model, values, tmp_path), before)


def test_two_inputs_may_swap_their_names() -> None:
    presented(["b", "a"], {"c": "c", "d": "d"}, fired=2)


def test_two_outputs_may_swap_their_names() -> None:
    presented(["a", "b"], {"c": "d", "d": "c"}, fired=2)


def test_an_input_may_take_the_name_that_another_gives_up() -> None:
    presented(["b", "text"], {"c": "c", "d": "d"}, fired=2)


def test_an_input_may_take_the_name_that_an_output_gives_up() -> None:
    presented(["c", "d"], {"c": "first", "d": "second"}, fired=4)


def test_an_output_may_take_the_name_that_an_input_gives_up() -> None:
    presented(["x", "y"], {"c": "a", "d": "b"}, fired=4)


def test_an_input_may_take_the_name_of_an_output_that_is_dropped() -> None:
    presented(["d", "b"], {"c": "c"}, fired=2)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["inner", "b"], {"c": "c", "d": "d"}),
        (["a", "b"], {"c": "inner", "d": "d"}),
        (["inner", "inner_inner"], {"c": "c", "d": "d"}),
        (["inner_inner", "inner"], {"c": "c", "d": "d"}),
    ],
)
def test_a_value_inside_makes_way_for_a_port(inputs: list[str], outputs: dict[str, str]) -> None:
    renamed = len({*inputs, *outputs.values()} - {"a", "b", "c", "d"})
    presented(inputs, outputs, fired=renamed)


def test_a_value_inside_a_subgraph_makes_way_too() -> None:
    model = parse(
        """g (float[2] x, bool c) => (float[2] y)
        { y = If(c) <then_branch = yes () => (float[2] u) { t = Neg(x) u = Abs(t) },
                     else_branch = no () => (float[2] v) { v = Neg(x) }> }"""
    )
    present(model, {"x": ("t", "float32"), "c": ("c", "bool")}, {"y": "y"})
    assert len(set(every_name(model))) == len(every_name(model))
    found = run(model, {"t": np.array([1, -2], np.float32), "c": np.array(True)})
    np.testing.assert_array_equal(found["y"], [1, 2])


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        (["a"], {"c": "c"}, r"inputs \['a'\] .* the graph has inputs \['a', 'b'\]"),
        (["a", "b"], {"c": "c", "lost": "lost"}, r"\['c', 'lost'\] wanted; .* \['c', 'd'\]"),
        (["a", "a"], {"c": "c"}, r"two ports.* are named \['a'\]"),
        (["a", "b"], {"c": "b"}, r"two ports.* are named \['b'\]"),
        (["a", "b"], {"c": "y", "d": "y"}, r"two ports.* are named \['y'\]"),
    ],
)
def test_it_refuses_ports_that_cannot_be(
    inputs: list[str], outputs: dict[str, str], reason: str
) -> None:
    model = parse(SUM)
    before = to_bytes(model)
    with pytest.raises(PreconditionError, match=reason):
        PresentInterfacePass(floats(inputs), outputs)(model)
    assert to_bytes(model) == before


def test_it_refuses_to_name_a_port_as_a_weight() -> None:
    with pytest.raises(PreconditionError, match=r"an initializer, are named \['table'\]"):
        PresentInterfacePass({"input_ids": ("table", "int32"), "scale": ("scale", "float32")}, {})(
            parse(ENCODER)
        )
