import numpy as np
import onnx_ir as ir

from converter.weights import Array
from passes.base import PassReport
from passes.narrow_int64_inputs import NarrowInt64InputsPass
from tests.passes.graphs import assert_equal, operators, parse, random_inputs, run, to_bytes

TABLE = "float[3,2] table = {1, 2, 3, 4, 5, 6}"


def narrow(model: ir.Model) -> PassReport:
    """Run the pass, and see to it that a second run finds nothing to do."""
    one = NarrowInt64InputsPass()
    one(model)
    after = to_bytes(model)
    assert not NarrowInt64InputsPass()(model).modified
    assert to_bytes(model) == after
    return one.report


def in_32_bits(inputs: dict[str, Array]) -> dict[str, Array]:
    return {
        name: values.astype(np.int32) if values.dtype == np.int64 else values
        for name, values in inputs.items()
    }


def narrowed(text: str, fired: int, left: list[str]) -> ir.Model:
    """Narrow a graph; it fires so often, those operators are left, and the outputs are the same."""
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert narrow(model) == PassReport("narrow-int64-inputs", fired)
    assert operators(model) == left
    assert not any(value.dtype == ir.DataType.INT64 for value in model.graph.inputs)
    assert_equal(run(model, in_32_bits(inputs)), before)
    return model


def test_users_of_the_input_read_it_widened() -> None:
    model = narrowed(
        f"tokens (int64[1,4] ids) => (float[1,4,2] y) <{TABLE}> {{ y = Gather(table, ids) }}",
        fired=1,
        left=["Cast", "Gather"],
    )
    widened = model.graph[0].outputs[0]
    assert (widened.name, widened.dtype) == ("ids_cast", ir.DataType.INT64)
    assert widened.shape == ir.Shape([1, 4])


def test_a_graph_that_narrows_the_input_itself_reads_it_directly() -> None:
    narrowed(
        f"""tokens (int64[1,4] ids) => (float[1,4,2] y) <{TABLE}>
        {{ narrow = Cast<to: int = 6>(ids) y = Gather(table, narrow) }}""",
        fired=1,
        left=["Gather"],
    )


def test_an_input_read_both_ways_is_widened_for_one_of_them_only() -> None:
    narrowed(
        f"""g (int64[1,4] ids) => (float[1,4,2] y, int32[1,4] z, int64[1,4] w) <{TABLE}>
        {{ narrow = Cast<to: int = 6>(ids) y = Gather(table, ids) z = Neg(narrow)
           w = Add(ids, ids) }}""",
        fired=1,
        left=["Cast", "Gather", "Neg", "Add"],
    )


def test_a_cast_to_another_type_still_starts_from_64_bits() -> None:
    narrowed(
        "g (int64[1] timestep) => (float[1] y) { t = Cast<to: int = 1>(timestep) y = Sin(t) }",
        fired=1,
        left=["Cast", "Cast", "Sin"],
    )


def test_a_cast_that_is_an_output_keeps_its_name() -> None:
    narrowed(
        "g (int64[3] ids) => (int32[3] y) { y = Cast<to: int = 6>(ids) }",
        fired=1,
        left=["Cast", "Cast"],
    )


def test_the_widened_value_takes_no_name_that_exists() -> None:
    model = narrowed(
        "g (int64[3] ids) => (int64[3] y) { ids_cast = Neg(ids) y = Add(ids_cast, ids) }",
        fired=1,
        left=["Cast", "Neg", "Add"],
    )
    assert model.graph[0].outputs[0].name == "ids_cast_0"


def test_subgraphs_read_the_input_too() -> None:
    narrowed(
        """g (int64[3] ids, bool c) => (int32[3] y)
        { y = If(c) <
            then_branch = yes () => (int32[3] u) { a = Cast<to: int = 6>(ids) u = Neg(a) },
            else_branch = no () => (int32[3] v) { b = Neg(ids) v = Cast<to: int = 6>(b) }> }""",
        fired=1,
        left=["Cast", "If"],
    )


def test_every_input_of_64_bits_is_narrowed_and_no_other() -> None:
    model = narrowed(
        """g (int64[2] a, float[2] x, int64[2] b, int64[2] unused) => (int64[2] y, float[2] z)
        { y = Add(a, b) z = Relu(x) }""",
        fired=3,
        left=["Cast", "Cast", "Add", "Relu"],
    )
    assert [str(value.dtype) for value in model.graph.inputs] == [
        "INT32",
        "FLOAT",
        "INT32",
        "INT32",
    ]


def test_a_graph_without_such_inputs_stays_as_it_is() -> None:
    model = parse("g (int32[2] a) => (int64[2] y) { b = Cast<to: int = 7>(a) y = Neg(b) }")
    before = to_bytes(model)
    assert narrow(model) == PassReport("narrow-int64-inputs")
    assert to_bytes(model) == before
