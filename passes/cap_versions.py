"""IR version and opset -> at most what a consumer reads."""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.weights import hidden_weights


class CapVersionsPass(Pass):
    """Lower the IR version and, where it is higher, the opset.

    1. The IR version is written down as it is: nothing we emit needs a newer one.
    2. A higher opset is converted by ONNX's own version converter, weights hidden.

    An opset that the converter cannot lower raises its error: there is no graph to go on with.
    """

    name = "cap-versions"

    def __init__(self, *, ir_version: int, opset: int) -> None:
        super().__init__()
        self._ir_version = ir_version
        self._opset = opset

    def call(self, model: ir.Model) -> PassResult:
        """Lower in place."""
        if model.ir_version > self._ir_version:
            model.ir_version = self._ir_version
            self.fire()
        if model.opset_imports.get("", 0) > self._opset:
            with hidden_weights(model):
                self._convert(model)
            self.fire()
        return self.result(model)

    def _convert(self, model: ir.Model) -> None:
        from onnx import version_converter

        converted = version_converter.convert_version(ir.to_proto(model), self._opset)
        model.graph = ir.from_proto(converted).graph  # brings its opset along
