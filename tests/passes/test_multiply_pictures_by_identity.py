import numpy as np
import pytest

from passes import multiply_pictures_by_identity
from passes.multiply_pictures_by_identity import MultiplyPicturesByIdentityPass
from tests.passes.graphs import apply, assert_equal, operators, parse, random_inputs, run

PICTURE = """
picture (float[1,4,2,3] x, float[1] time) => (float[1,6,4] y)
<int64[3] flat = {1, 6, 4}>
{
    pixels = Transpose<perm: ints = [0, 2, 3, 1]>(x)
    y = Reshape(pixels, flat)
}"""


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiply_pictures_by_identity, "ROWS", 4)


def test_tokens_are_products_with_an_identity() -> None:
    model = parse(PICTURE)
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert apply(MultiplyPicturesByIdentityPass, model).report.fired == 1
    assert operators(model).count("MatMul") == 2  # 4 tokens and 2
    assert operators(model)[-1] == "Concat"
    assert_equal(run(model, inputs), before)


def test_few_tokens_are_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiply_pictures_by_identity, "ROWS", 6)
    model = parse(PICTURE)
    inputs = random_inputs(model)
    before = run(model, inputs)
    assert apply(MultiplyPicturesByIdentityPass, model).report.fired == 1
    assert operators(model) == ["Mul", "Add", "Reshape", "Transpose", "MatMul"]
    assert_equal(run(model, inputs), before)


def test_an_identity_serves_all_pictures() -> None:
    text = PICTURE.replace("y)\n", "y, float[1,6,4] z)\n").replace(
        "}>\n{", "}>\n{\n    w = Transpose<perm: ints = [0, 2, 3, 1]>(x)\n    z = Reshape(w, flat)"
    )
    model = parse(text)
    assert apply(MultiplyPicturesByIdentityPass, model).report.fired == 2
    assert sorted(n for n in model.graph.initializers if "identity" in n) == [
        "sdconv_identity_2",
        "sdconv_identity_4",
    ]
    assert operators(model).count("MatMul") == 4


def test_the_zero_comes_from_a_whole_number_too() -> None:
    model = parse(PICTURE.replace("float[1] time", "int64[1] time"))
    inputs = random_inputs(model) | {"time": np.array([999])}
    before = run(model, inputs)
    assert apply(MultiplyPicturesByIdentityPass, model).report.fired == 1
    assert_equal(run(model, inputs), before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("perm: ints = [0, 2, 3, 1]", "perm: ints = [0, 3, 2, 1]"),
        ("{1, 6, 4}", "{1, 3, 8}"),
        ("Reshape(pixels, flat)", "Identity(pixels)"),
    ],
)
def test_other_transpositions_are_left_alone(old: str, new: str) -> None:
    text = PICTURE.replace(old, new).replace("float[1,6,4] y", "y")
    one = apply(MultiplyPicturesByIdentityPass, parse(text))
    assert (one.report.fired, one.report.refusals) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[1,4,2,3]", "[1,4,height,3]", "not static"),
        ("[1,4,2,3]", "[2,4,1,3]", "a batch of 2"),
        ("y)\n", "y, float[1,2,3,4] pixels)\n", "also used otherwise"),
        (", float[1] time", ", float[2] time", "no input of the graph is one number"),
    ],
)
def test_an_obstacle_is_refused_with_the_reason(old: str, new: str, reason: str) -> None:
    one = apply(MultiplyPicturesByIdentityPass, parse(PICTURE.replace(old, new)))
    assert one.report.fired == 0
    assert reason in one.report.refusals[0].reason
