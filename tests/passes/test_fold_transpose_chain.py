import math

import onnx_ir as ir
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from passes.base import Refusal
from passes.fold_transpose_chain import FoldTransposeChainPass
from tests.passes.graphs import (
    apply,
    assert_equal,
    names,
    operators,
    parse,
    random_inputs,
    run,
)

KEY = """
key (float[1,77,8,40] k) => (float[1,8,40,77] y)
<int64[3] flat = {8, 77, 40}, int64[4] heads = {1, 8, 40, 77}>
{
    a = Transpose<perm: ints = [0, 2, 1, 3]>(k)
    b = Reshape(a, flat)
    c = Transpose<perm: ints = [0, 2, 1]>(b)
    y = Reshape(c, heads)
}"""


def fold(model: ir.Model) -> FoldTransposeChainPass:
    """Run the pass on a model, and see to it that a second run finds nothing to do."""
    return apply(FoldTransposeChainPass, model)


def folded(text: str, fired: int, left: list[str]) -> ir.Model:
    """Fold a graph; it fires so often, those operators are left, and the outputs are the same."""
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    one = fold(model)
    assert one.report.fired == fired
    assert one.report.refusals == []
    assert operators(model) == left
    assert_equal(run(model, inputs), before)
    return model


def test_the_transposed_key_of_attention_becomes_one_transpose() -> None:
    model = folded(KEY, fired=1, left=["Transpose"])
    assert model.graph[0].attributes["perm"].as_ints() == (0, 2, 3, 1)
    (output,) = model.graph.outputs
    assert (output.name, output.shape) == ("y", ir.Shape([1, 8, 40, 77]))


def test_target_shapes_that_nobody_reads_any_more_go_and_the_others_stay() -> None:
    model = folded(
        """g (float[2,6] x, float[6,2] z) => (float[2,6] y, float[2,6] w, int64[2] out)
        <int64[2] mine = {3, 4}, int64[2] shared = {2, 6}, int64[2] out = {2, 6}>
        { a = Reshape(x, mine) b = Reshape(a, shared) c = Reshape(b, out) y = Relu(c)
          w = Reshape(z, shared) }""",
        fired=1,
        left=["Relu", "Reshape"],
    )
    assert list(model.graph.initializers) == ["shared", "out"]


def test_a_target_shape_that_is_a_weight_stays() -> None:
    model = parse(
        """g (float[2,6] x) => (float[2,6] y) <int64[2] s = WEIGHT, float[2,6] b>
        { a = Transpose(x) t = Transpose(a) b = Reshape(t, s) y = Relu(b) }"""
    )
    assert fold(model).report.fired == 1
    assert list(model.graph.initializers) == ["s"]


def test_extents_that_are_equal_are_told_apart_by_their_strides() -> None:
    model = folded(
        """g (float[4,4,4] x) => (float[4,4,4] y)
        <int64[2] two = {16, 4}, int64[3] three = {4, 4, 4}>
        { a = Transpose<perm: ints = [1, 2, 0]>(x) b = Reshape(a, two)
          c = Reshape(b, three) d = Transpose<perm: ints = [0, 2, 1]>(c) y = Relu(d) }""",
        fired=1,
        left=["Transpose", "Relu"],
    )
    assert model.graph[0].attributes["perm"].as_ints() == (1, 0, 2)


def test_axes_of_extent_one_go_where_the_shape_has_them() -> None:
    folded(
        """g (float[1,3,1,2] x) => (float[1,1,2,3] y)
        <int64[2] two = {3, 2}, int64[4] s = {1, 1, 2, 3}>
        { a = Reshape(x, two) b = Transpose(a) c = Reshape(b, s) y = Relu(c) }""",
        fired=1,
        left=["Transpose", "Relu"],
    )


def test_targets_with_zero_and_minus_one_are_understood() -> None:
    folded(
        """g (float[2,3,4] x) => (float[2,4,3] y) <int64[3] s = {0, -1, 4}, int64[3] t = {-1, 0, 3}>
        { a = Reshape(x, s) b = Transpose<perm: ints = [0, 2, 1]>(a) c = Reshape(b, t)
          y = Relu(c) }""",
        fired=1,
        left=["Transpose", "Relu"],
    )


def test_a_transpose_without_perm_reverses_the_axes() -> None:
    model = folded(
        """g (float[2,3,4] x) => (float[3,4,2] y)
        { a = Transpose(x) b = Transpose<perm: ints = [1, 0, 2]>(a) y = Relu(b) }""",
        fired=1,
        left=["Transpose", "Relu"],
    )
    assert model.graph[0].attributes["perm"].as_ints() == (1, 2, 0)


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Transpose(x) b = Transpose(a)",
        "b = Reshape(x, same)",
        "a = Reshape(x, other) b = Reshape(a, same)",
        "a = Transpose(x) c = Reshape(a, flat) d = Reshape(c, turned) b = Transpose(d)",
    ],
)
def test_a_run_that_moves_nothing_is_removed(nodes: str) -> None:
    model = folded(
        f"""g (float[2,6] x) => (float[2,6] y)
        <int64[2] same = {{2, 6}}, int64[2] other = {{3, 4}}, int64[1] flat = {{12}},
         int64[2] turned = {{6, 2}}>
        {{ {nodes} y = Relu(b) }}""",
        fired=1,
        left=["Relu"],
    )
    assert names([v for v in model.graph[0].inputs if v]) == ["x"]


def test_a_scalar_may_pass_through() -> None:
    folded(
        """g (float x) => (float y) <int64[0] s = {}>
        { a = Reshape(x, s) b = Transpose(a) y = Relu(b) }""",
        fired=1,
        left=["Relu"],
    )


def test_every_run_of_a_chain_is_folded_at_once() -> None:
    folded(
        """g (float[2,6] x) => (float[3,4] y) <int64[2] s = {3, 4}>
        { a = Transpose(x) b = Transpose(a) c = Reshape(b, s) d = Transpose(c) e = Transpose(d)
          y = Relu(e) }""",
        fired=2,
        left=["Reshape", "Relu"],
    )


@pytest.mark.parametrize(
    "nodes",
    [
        "b = Transpose(x)",
        "b = Reshape(x, other)",
        "a = Reshape(x, other) b = Transpose(a)",  # mixes elements: no transposition
        "b = Reshape(x, turned)",  # has the transposed shape, and is not the transposition
    ],
)
def test_what_is_no_longer_than_its_equal_is_left(nodes: str) -> None:
    text = f"""g (float[2,6] x) => (y) <int64[2] other = {{3, 4}}, int64[2] turned = {{6, 2}}>
        {{ {nodes} y = Relu(b) }}"""
    before = operators(parse(text))
    folded(text, fired=0, left=before)


def test_a_reshape_that_could_be_called_a_transpose_stays_free_of_charge() -> None:
    folded(
        """g (float[1,8,1] x) => (float[8,1,1] y) <int64[3] s = {8, 1, 1}>
        { a = Reshape(x, s) y = Relu(a) }""",
        fired=0,
        left=["Reshape", "Relu"],
    )


def test_a_chain_ends_where_a_value_has_a_second_user() -> None:
    folded(
        """g (float[2,3] x) => (float[2,3] y, float[3,2] z)
        { a = Transpose(x) b = Transpose(a) y = Relu(b) z = Relu(a) }""",
        fired=0,
        left=["Transpose", "Transpose", "Relu", "Relu"],
    )


def test_a_chain_ends_where_a_value_is_a_graph_output() -> None:
    model = folded(
        """g (float[2,3] x) => (float[3,2] a, float[2,3] y)
        { a = Transpose(x) b = Transpose(a) y = Relu(b) }""",
        fired=0,
        left=["Transpose", "Transpose", "Relu"],
    )
    assert names(model.graph.outputs) == ["a", "y"]


def test_a_graph_output_is_not_merged_with_a_graph_input() -> None:
    model = folded(
        "g (float[2,3] x) => (float[2,3] y) { a = Transpose(x) y = Transpose(a) }",
        fired=0,
        left=["Transpose", "Transpose"],
    )
    assert names(model.graph.outputs) == ["y"]


def test_what_moves_nothing_before_a_graph_output_is_shortened_all_the_same() -> None:
    model = folded(
        """g (float[2,3] x) => (float[2,3] y)
        { a = Transpose(x) b = Transpose(a) c = Transpose(b) y = Transpose(c) }""",
        fired=1,
        left=["Transpose", "Transpose"],
    )
    assert names(model.graph.outputs) == ["y"]


def test_a_chain_used_as_the_target_of_a_reshape_is_not_followed() -> None:
    folded(
        """g (float[2,1] x) => (float[1,2] y)
        <int64[1,2] s = {1, 2}, int64[1] flat = {2}, float[1,2] b>
        { a = Reshape(s, flat) b = Reshape(x, a) y = Relu(b) }""",
        fired=0,
        left=["Reshape", "Reshape", "Relu"],
    )


def test_a_chain_does_not_run_into_a_subgraph() -> None:
    folded(
        """g (float[3,3] x, bool c) => (float[3,3] y)
        { a = Transpose(x)
          y = If(c) <then_branch = yes () => (float[3,3] u) { b = Transpose(a) u = Relu(b) },
                     else_branch = no () => (float[3,3] v) { v = Relu(x) }> }""",
        fired=0,
        left=["Transpose", "If"],
    )


def test_a_subgraph_may_read_the_end_of_a_chain() -> None:
    folded(
        """g (float[2,3] x, bool c) => (float[2,3] y)
        { a = Transpose(x) b = Transpose(a)
          y = If(c) <then_branch = yes () => (float[2,3] u) { u = Relu(b) },
                     else_branch = no () => (float[2,3] v) { v = Neg(b) }> }""",
        fired=1,
        left=["If"],
    )


def test_a_tensor_without_elements_is_left() -> None:
    folded(
        """g (float[2,0,3] x) => (float[2,3,0] y) <int64[3] s = {2, 3, 0}>
        { a = Transpose<perm: ints = [0, 2, 1]>(x) b = Reshape<allowzero: int = 1>(a, s)
          y = Relu(b) }""",
        fired=0,
        left=["Transpose", "Reshape", "Relu"],
    )


def test_a_weight_may_be_the_source_and_is_not_read() -> None:
    model = parse(
        """g (float[4,2] x) => (float[4,3] y) <float[3,2] W = WEIGHT, int64[2] s = {2, 3}>
        { a = Transpose(W) b = Reshape(a, s) y = MatMul(x, b) }"""
    )
    assert fold(model).report.fired == 1
    assert operators(model) == ["Transpose", "MatMul"]


def test_it_refuses_where_a_shape_is_not_static() -> None:
    model = parse(
        """g (float[N,3] x) => (float[N,3] y)
        { a = Transpose(x) b = Transpose(a) y = Relu(b) }"""
    )
    model.graph[0].name = "first"
    one = fold(model)
    assert one.report.fired == 0
    assert one.report.refusals == [Refusal("first", "a shape in the chain is not static")]
    assert operators(model) == ["Transpose", "Transpose", "Relu"]


@st.composite
def shapes_of(draw: st.DrawFn, elements: int) -> list[int]:
    """Any way to write a number of elements as a shape of at most five axes."""
    shape = []
    for _ in range(draw(st.integers(0, 4))):
        divisors = [d for d in range(1, elements + 1) if elements % d == 0]
        shape.append(draw(st.sampled_from(divisors)))
        elements //= shape[-1]
    return [*shape, elements] if elements > 1 else shape


@st.composite
def regrouped(draw: st.DrawFn, shape: list[int]) -> list[int]:
    """The shape with some neighbours merged and perhaps a one added, as attention does."""
    out: list[int] = []
    for extent in shape:
        if draw(st.booleans()) and out:
            out[-1] *= extent
        else:
            out.append(extent)
    if draw(st.booleans()):
        out.insert(draw(st.integers(0, len(out))), 1)
    return out


@st.composite
def targets(draw: st.DrawFn, shapes: list[list[int]]) -> list[int]:
    """A shape to go on with: a new one, the last regrouped or reordered, or an earlier one."""
    last = shapes[-1]
    return draw(
        st.one_of(
            shapes_of(math.prod(last)),
            regrouped(last),
            st.permutations(last).map(list),
            st.sampled_from(shapes),
        )
    )


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, int]:
    """The text of a graph that is one chain, and how many links the chain has."""
    shapes = [draw(st.lists(st.integers(1, 3), max_size=4))]
    links, constants = [], []
    count = draw(st.integers(1, 6))
    for i in range(count):
        if draw(st.booleans()):
            order = list(draw(st.permutations(range(len(shapes[-1])))))
            shapes.append([shapes[-1][axis] for axis in order])
            perm = f"<perm: ints = {order}>" if order else ""
            links.append(f"v{i + 1} = Transpose{perm}(v{i})")
        else:
            shapes.append(draw(targets(shapes)))
            extents = [*shapes[-1]]
            if draw(st.booleans()) and extents:
                extents[draw(st.integers(0, len(extents) - 1))] = -1
            constants.append(f"int64[{len(extents)}] s{i} = {{{str(extents)[1:-1]}}}")
            links.append(f"v{i + 1} = Reshape(v{i}, s{i})")
    declared = f"<{', '.join(constants)}>" if constants else ""
    nodes = "\n".join([*links, f"y = Relu(v{count})"])
    return f"chain (float{shapes[0] or ''} v0) => (y) {declared} {{ {nodes} }}", count


@settings(max_examples=200, deadline=None)
@given(chains())
def test_any_chain_computes_the_same_and_is_never_longer(chain: tuple[str, int]) -> None:
    text, links = chain
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    one = fold(model)
    event(f"fired {one.report.fired} times")
    assert len(operators(model)) - 1 <= links - one.report.fired
    assert_equal(run(model, inputs), before)
