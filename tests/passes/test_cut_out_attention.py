from pathlib import Path

import numpy as np
import pytest

from passes.cut_out_attention import GIVES, TAKES, CutOutAttentionPass
from passes.weights import weight_places
from tests.passes.graphs import (
    apply,
    assert_equal,
    names,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    write_weights,
)

NETWORK = """
network (float[1,4,8] x) => (float[1,4,8] y)
<float[8,8] I = WEIGHT, float[8,8] Q = WEIGHT, float[8,8] V = WEIGHT, float[8,8] O = WEIGHT>
{
    first = MatMul(x, I)
    before = Add(first, x)
    normed = LayerNormalization(before, scale)
    query = MatMul(normed, Q)
    key = Transpose<perm: ints = [0, 2, 1]>(normed)
    scores = MatMul(query, key)
    shares = Softmax<axis: int = -1>(scores)
    values = MatMul(normed, V)
    mixed = MatMul(shares, values)
    behind = Add(mixed, before)
    last = MatMul(behind, O)
    y = Add(last, behind)
}""".replace("O = WEIGHT>", "O = WEIGHT, float[8] scale = WEIGHT>")


def test_it_leaves_with_its_norm_its_residual_and_its_weights(tmp_path: Path) -> None:
    """The two graphs, one after the other and the first again, compute what the one did."""
    model = parse(NETWORK)
    values = random_weights(model)
    write_weights(model, tmp_path, values)
    inputs = random_inputs(model)
    wanted = run(model, inputs, tmp_path)
    one = apply(CutOutAttentionPass, model)
    assert one.report.fired == 1
    assert one.part is not None
    part = one.part
    assert names(model.graph.inputs) == ["x", GIVES]
    assert names(model.graph.outputs) == ["y", TAKES]
    assert operators(model) == ["MatMul", "Add", "MatMul", "Add"]
    assert operators(part)[0] == "LayerNormalization"
    assert operators(part)[-1] == "Add"
    assert [*weight_places(model)] == ["I", "O"]
    assert [*weight_places(part)] == ["Q", "V", "scale"]
    nothing = {GIVES: np.zeros((1, 4, 8), np.float32)}
    takes = run(model, {**inputs, **nothing}, tmp_path)[TAKES]
    gives = run(part, {TAKES: takes}, tmp_path)
    found = run(model, {**inputs, **gives}, tmp_path)
    assert_equal({"y": found["y"]}, wanted)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("y = Add(last, behind)", "z = Add(last, behind)\ny = Softmax(z)", "one of 2, and one is"),
        ("y = Add(last, behind)", "y = Add(last, x)", "nothing is left around it"),
        ("behind = Add(mixed, before)", "behind = Add(mixed, x)", "nothing is left around it"),
    ],
)
def test_it_stays_where_it_is_not_alone_or_something_goes_around_it(
    old: str, new: str, reason: str
) -> None:
    one = apply(CutOutAttentionPass, parse(NETWORK.replace(old, new)))
    assert one.part is None
    assert {refusal.reason[: len(reason)] for refusal in one.report.refusals} == {reason}


def test_a_network_without_attention_is_left_alone() -> None:
    model = parse("plain (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    one = apply(CutOutAttentionPass, model)
    assert (one.report.fired, one.report.refusals) == (0, [])
