"""graph(batch, height, width) -> graph at one size: set the input shapes, fold shape arithmetic.

The folding is ONNX Runtime's, at its basic level. It sees the graph without weights (they are
inputs while it runs), so it takes a second and little memory whatever the model weighs. (onnxsim
was tried: it leaves `Shape` operators where sizes come from skip connections.)
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import PassResult, PostconditionError, PreconditionError

from passes.base import Pass
from passes.weights import hidden_weights

KEPT = ["MatMulAddFusion"]
"""Optimizers switched off: it would put two Reshapes around every linear layer to use Gemm."""


class SpecializeSizePass(Pass):
    """Give every input its concrete shape and reduce shape arithmetic to constants.

    1. A graph that already has these shapes and no `Shape` operator is left as it is.
    2. Otherwise the graph comes out with static shapes at every value and no `Shape` operator.
    """

    name = "specialize-size"

    def __init__(self, input_shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._shapes = input_shapes

    def requires(self, model: ir.Model) -> None:
        """Every named shape must belong to an input and have its rank, and the reverse."""
        ranks = {value.name: len(value.shape or ()) for value in model.graph.inputs}
        wanted = {name: len(shape) for name, shape in self._shapes.items()}
        if ranks != wanted:
            raise PreconditionError(
                f"the inputs' ranks are {ranks}, the shapes given have {wanted}"
            )

    def call(self, model: ir.Model) -> PassResult:
        """Specialise in place."""
        if self._is_done(model):
            return PassResult(model, modified=False)
        for value in model.graph.inputs:
            value.shape = ir.Shape(self._shapes[value.name or ""])
        ranks = {v.name: v.shape and ir.Shape([None] * len(v.shape)) for v in model.graph.outputs}
        with hidden_weights(model):
            for node in model.graph:
                for value in node.outputs:
                    value.shape = None  # of another size, or symbolic
            for value in model.graph.outputs:
                value.shape = ranks[value.name]  # ONNX wants at least the rank here
            folded = _fold(model)
            model.graph = folded.graph
            model.functions.clear()  # inlined by the runtime
        self.fire()
        return self.result(model)

    def ensures(self, model: ir.Model) -> None:
        """No shape is computed any more and every shape is known."""
        if not self._is_done(model):
            left = [n.name for n in model.graph if n.op_type == "Shape"]
            unknown = [v.name for n in model.graph for v in n.outputs if not _is_static(v)]
            raise PostconditionError(
                f"shape arithmetic was not folded: {len(left)} Shape operators left {left[:5]}, "
                f"{len(unknown)} values of unknown shape {unknown[:5]}"
            )

    def _is_done(self, model: ir.Model) -> bool:
        shapes = {v.name: tuple(v.shape) for v in model.graph.inputs if v.shape is not None}
        return (
            shapes == dict(self._shapes)
            and all(node.op_type != "Shape" for node in model.graph)
            and all(_is_static(v) for n in model.graph for v in n.outputs)
        )


def _is_static(value: ir.Value) -> bool:
    omitted = not value.name  # an optional output that nobody wants
    return omitted or (value.shape is not None and value.shape.is_static())


def _fold(model: ir.Model) -> ir.Model:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=KEPT,
        )
        folded = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True))
    used = {node.domain for node in folded.graph}
    for domain in [d for d in folded.opset_imports if d not in used]:
        del folded.opset_imports[domain]  # the runtime declares all it knows
    return folded
