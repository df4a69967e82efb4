"""An ONNX graph in ONNX Runtime with its inner values to be seen."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from converter.weights import Array
from targets.base import LayerRunner, ToolchainError


class OnnxValues(LayerRunner):
    """A graph file, its weights where it says. Which values are wanted decides what is built.

    `weights` is the folder of the weights, where they do not lie beside the graph.

    With `as_written` no node is fused or moved, which costs time and hides nothing; else the graph
    is optimised as an artifact's is.
    """

    def __init__(self, graph: Path, *, as_written: bool, weights: Path | None = None) -> None:
        self.graph = graph
        self._weights = weights or graph.parent
        self._as_written = as_written
        self._model = ir.load(graph)
        self._outputs = [value.name or "" for value in self._model.graph.outputs]

    def values(self) -> list[str]:
        """Every value that nodes compute in floating point of the inputs, in their order."""
        fixed = fixed_values(self._model.graph)
        return [
            value.name
            for node in self._model.graph
            for value in node.outputs
            if value.name and value not in fixed and _is_float(value)
        ]

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; see `Runner.infer`."""
        return dict(self.layers(inputs, self._outputs))

    def layers(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
        """Run once with the wanted values as outputs; see `LayerRunner.layers`."""
        there = {*self.values(), *self._outputs}
        names = [name for name in dict.fromkeys(wanted) if name in there]
        session = self._session(names)
        taken = {value.name for value in session.get_inputs()}
        given = {name: array for name, array in inputs.items() if name in taken}
        try:
            return dict(zip(names, session.run(names, given), strict=True))
        except Exception as e:  # its exceptions share no base class of their own
            raise ToolchainError(f"{self.graph}: ONNX Runtime cannot run it: {e}") from e

    def _session(self, names: Collection[str]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_DISABLE_ALL if self._as_written else level.ORT_ENABLE_EXTENDED
        )
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._weights)
        )
        proto = ir.to_proto(_with_outputs(self.graph, names))
        try:
            return onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:
            raise ToolchainError(f"{self.graph}: ONNX Runtime cannot load it: {e}") from e


def fixed_values(graph: ir.Graph) -> set[ir.Value | None]:
    """The weights and other constants, what is made of these alone, and the input left out."""
    fixed: set[ir.Value | None] = {None, *graph.initializers.values()}
    for node in graph:
        if fixed.issuperset(node.inputs):
            fixed.update(node.outputs)
    return fixed


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _with_outputs(graph: Path, names: Collection[str]) -> ir.Model:
    """The graph with these values as further outputs; weights stay in their files."""
    model = ir.load(graph)
    there = {value.name for value in model.graph.outputs}
    for node in model.graph:
        model.graph.outputs.extend(
            value for value in node.outputs if value.name in names and value.name not in there
        )
    return model
