from collections.abc import Callable

import onnx_ir as ir
import pytest
from onnx_ir.passes import PassResult, PostconditionError

from passes.base import Pass, PassReport, Refusal
from tests.passes.graphs import parse, to_bytes

LAYER = """
layer (float[2,4] x) => (float[2,4] y)
<float[4,4] W = WEIGHT, float[4] b = WEIGHT, float[4] c = {1, 2, 3, 4}>
{ [first] a = MatMul(x, W) [second] d = Add(a, b) y = Add(d, c) }"""

Change = Callable[[ir.Model], None]


class ChangingPass(Pass):
    """Does to the model what it is told to."""

    name = "changing"

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    def call(self, model: ir.Model) -> PassResult:
        self._change(model)
        self.fire()
        return self.result(model)


class ChangingWeightsPass(ChangingPass):
    name = "changing-weights"
    changes_weights = True


class ReluPass(Pass):
    """Fires at every Relu and refuses every Add."""

    name = "relu"

    def call(self, model: ir.Model) -> PassResult:
        for node in model.graph:
            if node.op_type == "Relu":
                self.fire()
            if node.op_type == "Add":
                self.refuse(node, "no Relu")
        return self.result(model)


def replaced(
    *, offset: int = 0, shape: tuple[int, ...] = (4, 4), dtype: ir.DataType = ir.DataType.FLOAT
) -> Change:
    def change(model: ir.Model) -> None:
        tensor = ir.ExternalTensor(
            "weights.bin", offset, 64, dtype, shape=ir.Shape(shape), name="W", base_dir=""
        )
        model.graph.initializers["W"].const_value = tensor

    return change


def lost(model: ir.Model) -> None:
    del model.graph.initializers["b"]


def renamed(model: ir.Model) -> None:
    model.graph.initializers["b"].name = "bias"


def read_into_the_graph(model: ir.Model) -> None:
    model.graph.initializers["b"].const_value = ir.tensor([1.0, 2, 3, 4], name="b")


def added(model: ir.Model) -> None:
    tensor = ir.ExternalTensor(
        "weights.bin", 80, 16, ir.DataType.FLOAT, shape=ir.Shape([4]), name="new", base_dir=""
    )
    value = ir.Value(name="new", shape=tensor.shape, const_value=tensor)
    model.graph.register_initializer(value)


def constant_changed(model: ir.Model) -> None:
    model.graph.initializers["c"].const_value = ir.tensor([4.0, 3, 2, 1], name="c")


CHANGES = {
    "lost": lost,
    "renamed": renamed,
    "moved": replaced(offset=16),
    "reshaped": replaced(shape=(2, 8)),
    "of another dtype": replaced(dtype=ir.DataType.INT32),
    "read into the graph": read_into_the_graph,
    "added": added,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_pass_that_touches_a_weight_is_rejected(change: Change) -> None:
    with pytest.raises(PostconditionError, match="pass changing lost, moved or reshaped a weight"):
        ChangingPass(change)(parse(LAYER))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_pass_that_says_so_may(change: Change) -> None:
    assert ChangingWeightsPass(change)(parse(LAYER)).modified


def test_constants_are_no_weights_and_may_change() -> None:
    assert ChangingPass(constant_changed)(parse(LAYER)).modified


def test_replacing_a_weight_by_the_same_place_is_no_change() -> None:
    assert ChangingPass(replaced())(parse(LAYER)).modified


def test_the_report_starts_anew_with_every_run() -> None:
    one = ReluPass()
    assert one.report == PassReport("relu")
    first = one(parse("g (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }"))
    earlier = one.report
    assert (first.modified, earlier) == (True, PassReport("relu", 2))
    second = one(parse(LAYER))
    reasons = [Refusal("second", "no Relu"), Refusal("Add", "no Relu")]
    assert (second.modified, one.report) == (False, PassReport("relu", 0, reasons))
    assert earlier == PassReport("relu", 2)


def test_a_pass_takes_the_result_of_another() -> None:
    model = parse(LAYER)
    before = to_bytes(model)
    assert ReluPass()(ReluPass()(model)).model is model
    assert to_bytes(model) == before
