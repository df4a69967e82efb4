from pathlib import Path

import pytest

from passes import split_convolutions
from passes.split_convolutions import SplitConvolutionsPass
from tests.passes.graphs import (
    apply,
    assert_equal,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    write_weights,
)

CONVOLUTION = """
wide (float[1,3,4,4] x) => (float[1,384,4,4] y)
<float[384,3,3,3] W = WEIGHT, float[384] b = WEIGHT>
{
    y = Conv<pads: ints = [1, 1, 1, 1]>(x, W, b)
}"""


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_convolutions, "PART", 128 * 3 * 9)


@pytest.mark.parametrize("bias", [", b", ""])
def test_a_large_convolution_comes_in_parts(tmp_path: Path, bias: str) -> None:
    model = parse(CONVOLUTION.replace(", b)", f"{bias})"))
    inputs = random_inputs(model)
    write_weights(model, tmp_path, random_weights(model))
    before = run(model, inputs, tmp_path)
    assert apply(SplitConvolutionsPass, model).report.fired == 1
    assert operators(model).count("Conv") == 3
    assert operators(model)[-1] == "Concat"
    assert_equal(run(model, inputs, tmp_path), before, rtol=1e-6)
    assert apply(SplitConvolutionsPass, model).report.fired == 0


def test_a_part_is_named_after_its_weight_and_has_whole_lanes() -> None:
    model = parse(CONVOLUTION)
    apply(SplitConvolutionsPass, model)
    parts = [n.outputs[0] for n in model.graph if n.op_type == "Slice"]
    shapes = {v.name: tuple(v.shape.numpy()) for v in parts if v.shape is not None}
    assert shapes["W.128-256"] == (128, 3, 3, 3)
    assert shapes["b.256-384"] == (128,)


def test_a_small_or_grouped_convolution_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = CONVOLUTION.replace("[384,3,3,3]", "[384,1,3,3]").replace("<pads", "<group=3, pads")
    monkeypatch.setattr(split_convolutions, "PART", 384 * 9 - 1)
    assert apply(SplitConvolutionsPass, parse(grouped)).report.fired == 0
    monkeypatch.setattr(split_convolutions, "PART", 384 * 27)
    assert apply(SplitConvolutionsPass, parse(CONVOLUTION)).report.fired == 0


@pytest.mark.parametrize(
    ("channels", "part"), [(380, 128), (64, 32)], ids=["no whole lanes", "one lane is too much"]
)
def test_what_has_no_small_parts_is_refused(
    channels: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_convolutions, "PART", part * 27)
    one = apply(SplitConvolutionsPass, parse(CONVOLUTION.replace("384", str(channels))))
    assert one.report.fired == 0
    assert "no parts of 64 channels each are small enough" in one.report.refusals[0].reason
