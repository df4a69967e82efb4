"""What is INT8 in a mixed network, and the ranges that the compiler is told."""

from collections.abc import Iterable

import pytest

from targets.base import ToolchainError
from targets.sophgo import top_graph
from targets.sophgo.calibration_table import calibration_table
from targets.sophgo.mixed import of_16_bits, products_in_int8
from targets.sophgo.observing import Range
from targets.sophgo.top_graph import Operation, TopGraph


def graph_of(*operations: tuple[str, ...]) -> TopGraph:
    """Name, kind and operands of each operation."""
    return {
        name: Operation(f"top.{kind}", tuple(operands), line)
        for line, (name, kind, *operands) in enumerate(operations)
    }


def products(*weights: str) -> TopGraph:
    """An input multiplied by each weight."""
    named = [(weight, "Weight") for weight in weights]
    return graph_of(
        ("x", "Input"), *named, *((f"by {weight}", "MatMul", "x", weight) for weight in weights)
    )


def numbers(table: str) -> dict[str, tuple[float, ...]]:
    rows = [line.split() for line in table.splitlines()[1:]]
    return {name: tuple(map(float, found)) for name, *found in rows}


INNER = "down_blocks.1.attentions.0.transformer_blocks.0."
OUTER = "up_blocks.3.attentions.2.transformer_blocks.0."


@pytest.mark.parametrize(
    ("weight", "is_int8"),
    [
        ("conv_in.weight", False),
        ("down_blocks.1.resnets.0.conv1.weight", True),
        ("down_blocks.1.resnets.0.conv_shortcut.weight", False),
        ("down_blocks.1.resnets.0.time_emb_proj.weight", False),
        (INNER + "attn1.to_k.weight", True),
        (INNER + "attn2.to_k.weight", False),
        (INNER + "attn2.to_q.weight", True),
        (INNER + "ff.net.2.weight", True),
        (OUTER + "attn1.to_k.weight", False),
        (OUTER + "ff.net.0.proj.weight", True),
        (OUTER + "ff.net.2.weight", False),
        ("up_blocks.3.resnets.0.conv1.weight", True),
        ("up_blocks.3.resnets.0.conv2.weight", False),
        ("up_blocks.2.upsamplers.0.conv.weight", True),
        ("down_blocks.0.downsamplers.0.conv.weight", True),
        ("up_blocks.2.attentions.0.proj_in.weight", True),
        ("up_blocks.3.attentions.0.proj_in.weight", False),
        ("down_blocks.0.attentions.0.proj_in.weight", False),
    ],
)
def test_the_path_of_a_weight_decides(weight: str, is_int8: bool) -> None:
    graph = products(weight, "up_blocks.3.attentions.1.proj_in.weight")
    assert (f"by {weight}" in products_in_int8(graph)) == is_int8


def test_only_products_of_something_computed_with_a_weight_are_int8() -> None:
    graph = graph_of(
        ("x", "Input"),
        ("w", "Weight"),
        ("scores", "MatMul", "x", "x"),
        ("folded", "MatMul", "w", "w"),
        ("sum", "Add", "x", "w"),
        ("product", "MatMul", "x", "w"),
    )
    assert products_in_int8(graph) == ["product"]


def test_what_another_product_takes_as_it_is_gets_8_bits() -> None:
    """The compiler would hand 16 bits to it."""
    graph = graph_of(
        ("x", "Input"),
        ("w", "Weight"),
        ("first", "Conv", "x", "w"),
        ("rows", "Reshape", "first"),
        ("second", "MatMul", "rows", "w"),
        ("sum", "Add", "second", "second"),
        ("third", "MatMul", "sum", "w"),
    )
    assert of_16_bits(graph, products_in_int8(graph)) == ["second", "third"]


def ranges(names: Iterable[str]) -> dict[str, Range]:
    return {name: Range(-4.0, 3.0 + number, 2.0) for number, name in enumerate(names)}


def test_what_goes_in_keeps_its_threshold_and_what_comes_out_has_headroom() -> None:
    graph = graph_of(("x", "Input"), ("w", "Weight"), ("y_MatMul_Add", "MatMul", "x", "w"))
    table = numbers(calibration_table(graph, {"x"}, {"y_MatMul_Add"}, ranges(["x", "y_MatMul"])))
    assert table == {"x": (2, -4, 3), "y_MatMul_Add": (8, -8, 8)}


def test_lines_agree_along_what_only_moves_values() -> None:
    """The compiler would give `moved` the range of `sum`, whatever its own line says."""
    graph = graph_of(
        ("x", "Input"),
        ("w", "Weight"),
        ("sum", "Add", "x", "x"),
        ("turned", "Permute", "sum"),
        ("moved", "Reshape", "turned"),
        ("y", "MatMul", "moved", "w"),
    )
    half = {"x", "sum", "turned", "moved"}
    table = numbers(calibration_table(graph, half, {"y"}, ranges(["moved", "y"])))
    assert table["sum"] == table["turned"] == table["moved"] == (2, -4, 3)
    assert table["x"] == (1, -1, 1)


def test_a_concatenation_reaches_as_far_as_its_parts() -> None:
    """The compiler gives its range to the parts."""
    graph = graph_of(
        ("x", "Input"),
        ("w", "Weight"),
        ("a", "Conv", "x", "w"),
        ("b", "Conv", "x", "w"),
        ("both", "Concat", "a", "b", "x"),
    )
    table = numbers(calibration_table(graph, {"x", "both"}, {"a", "b"}, ranges("xab")))
    assert (table["a"], table["b"], table["both"]) == ((8, -8, 8), (10, -10, 10), (10, -10, 10))


def test_a_range_that_is_missing_is_named() -> None:
    graph = graph_of(("x", "Input"), ("w", "Weight"), ("y", "MatMul", "x", "w"))
    with pytest.raises(ToolchainError, match="no range is known of y, which INT8 needs"):
        calibration_table(graph, {"x"}, (), ranges("x"))


def test_the_compilers_text_is_read_and_marked() -> None:
    text = """\
    %0 = "top.None"() : () -> none loc(#loc)
    %1 = "top.Input"(%arg0) : (tensor<1x4xf32>) -> tensor<1x4xf32> loc(#loc1)
    %2:2 = "top.Split"(%1) {num = 2 : i64} : (...) -> (...) loc(#loc4)
    %3 = "top.MatMul"(%2#1, %1, %0) {do_relu = false} : (...) -> tensor<1x4xf32> loc(#loc5)
#loc1 = loc("x")
#loc2 = loc("first")
#loc3 = loc("second")
#loc4 = loc(fused[#loc2, #loc3])
#loc5 = loc("y_MatMul")
"""
    graph = top_graph.parse(text)
    assert graph["first"] == Operation("top.Split", ("x",), 2)
    assert graph["y_MatMul"].operands[:2] == ("first", "x")
    marked = top_graph.with_attribute(text, graph, ["y_MatMul"], "output_int16 = true")
    assert marked == text.replace("{do_relu", "{output_int16 = true, do_relu")
