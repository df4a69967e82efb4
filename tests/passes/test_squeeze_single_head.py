import pytest

from passes.fold_transpose_chain import FoldTransposeChainPass
from passes.squeeze_single_head import SqueezeSingleHeadPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

ATTENTION = """
attention (float[1,6,8] q, float[1,6,8] k, float[1,6,8] v) => (float[1,6,8] y)
<int64[4] heads = {1, 6, 1, 8}, int64[3] flat = {1, 6, 8}, float[1] scale = {0.5}>
{
    q4 = Reshape(q, heads)
    qh = Transpose<perm: ints = [0, 2, 1, 3]>(q4)
    qs = Mul(qh, scale)
    k4 = Reshape(k, heads)
    kt = Transpose<perm: ints = [0, 2, 3, 1]>(k4)
    ks = Mul(kt, scale)
    v4 = Reshape(v, heads)
    vh = Transpose<perm: ints = [0, 2, 1, 3]>(v4)
    scores = MatMul(qs, ks)
    weights = Softmax<axis: int = -1>(scores)
    mixed = MatMul(weights, vh)
    joined = Transpose<perm: ints = [0, 2, 1, 3]>(mixed)
    together = Reshape(joined, flat)
    y = Neg(together)
}"""


def squeeze(text: str) -> SqueezeSingleHeadPass:
    """Run the pass, compare numerics, and see to it that a second run finds nothing to do."""
    model = parse(text)
    inputs = random_inputs(model)
    before = run(model, inputs)
    one = apply(SqueezeSingleHeadPass, model)
    assert_equal(run(model, inputs), before, rtol=1e-6)
    return one


def test_one_head_becomes_three_axes_and_the_head_splitting_folds_away() -> None:
    assert squeeze(ATTENTION).report.fired == 1
    model = parse(ATTENTION)
    inputs = random_inputs(model)
    before = run(model, inputs)
    SqueezeSingleHeadPass()(model)
    FoldTransposeChainPass()(model)
    assert operators(model) == ["Mul", "Transpose", "Mul", "MatMul", "Softmax", "MatMul", "Neg"]
    assert all(len(value.shape or ()) == 3 for node in model.graph for value in node.outputs)
    assert_equal(run(model, inputs), before, rtol=1e-6)


def test_as_many_tokens_as_channels_is_no_special_case() -> None:
    assert squeeze(ATTENTION.replace("6,", "8,")).report.fired == 1


def test_several_heads_are_left_alone() -> None:
    text = ATTENTION.replace("{1, 6, 1, 8}", "{1, 6, 2, 4}")
    one = squeeze(text)
    assert (one.report.fired, one.report.refusals) == (0, [])


def test_a_result_that_is_the_graphs_output_keeps_its_name_and_shape() -> None:
    text = ATTENTION.replace("(float[1,6,8] y)", "(float[1,1,6,8] mixed)")
    text = text[: text.index("    joined")] + "}"
    assert squeeze(text).report.fired == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Softmax<axis: int = -1>(scores)", "Softmax<axis: int = -1>(masked)", "no MatMul"),
        ("Softmax<axis: int = -1>", "Softmax<axis: int = 2>", "runs over axis 2"),
        ("MatMul(weights, vh)", "MatMul(weights, weights)", "goes elsewhere"),
    ],
)
def test_what_is_no_plain_attention_is_refused_with_the_reason(
    old: str, new: str, reason: str
) -> None:
    text = ATTENTION.replace(old, new)
    if "masked" in new:
        text = text.replace("    weights", "    masked = Add(scores, scores)\n    weights")
    if "weights, weights" in new:
        text = text[: text.index("    joined")].replace(
            "(float[1,6,8] y)", "(float[1,1,6,6] mixed)"
        )
        text += "}"
    one = squeeze(text)
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason


def test_scores_that_are_read_elsewhere_are_refused() -> None:
    text = ATTENTION.replace("(float[1,6,8] y)", "(float[1,6,8] y, float[1,1,6,6] scores)")
    one = squeeze(text)
    assert "other users" in one.report.refusals[0].reason


def test_a_factor_scaled_by_more_than_one_number_is_reshaped_as_it_is() -> None:
    text = ATTENTION.replace("float[1] scale = {0.5}", "float[1,1,1,1] scale = {0.5}")
    assert squeeze(text).report.fired == 1
