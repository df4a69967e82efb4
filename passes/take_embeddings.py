"""UNet(x, t, text) -> UNet(x, text, e): what depends on time and sizes alone is an input.

A host that computes the sinusoids of a timestep once a step hands them over, and SDXL's pooled text
and sizes joined with them. Every input then has four axes: ones stand behind the batch.
"""

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import PassResult, PreconditionError, common

from passes.base import Pass
from passes.building import Builder


class TakeEmbeddingsPass(Pass):
    """Feed linear layers from inputs of their own, and give every input four axes.

    `fed` maps the name of a layer's weight to that of the input [batch, 1, 1, inputs] that it is to
    have. Inputs that nothing needs any more, but for their batch, are removed. A graph that has
    those inputs is done.
    """

    name = "take-embeddings"

    def __init__(self, fed: Mapping[str, str]) -> None:
        super().__init__()
        self._fed = fed

    def requires(self, model: ir.Model) -> None:
        """Every weight is there, and used by one layer that multiplies by its transpose."""
        for name in self._fed:
            weight = model.graph.initializers.get(name)
            uses = [] if weight is None else list(weight.uses())
            if len(uses) != 1 or uses[0].node.op_type != "Gemm":
                raise PreconditionError(f"{name}: one Gemm by it was expected, found {len(uses)}")

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        graph = model.graph
        if set(self._fed.values()) & {value.name for value in graph.inputs}:
            return PassResult(model, modified=False)
        batch = graph.inputs[0].shape[0]  # type: ignore[index]
        for name, port in self._fed.items():
            weight = graph.initializers[name]
            (use,) = weight.uses()
            assert weight.shape is not None and weight.dtype is not None
            fed = ir.Value(
                name=port,
                shape=ir.Shape([batch, 1, 1, weight.shape[1]]),
                type=ir.TensorType(weight.dtype),
            )
            graph.inputs.append(fed)
            use.node.replace_input_with(0, _narrowed(graph, use.node, fed, [1, 2]))
            self.fire()
        common.RemoveUnusedNodesPass()(model)
        for value in list(graph.inputs[1:]):
            if all(_asks_batch(use.node) for use in value.uses()):
                for use in list(value.uses()):
                    use.node.replace_input_with(0, graph.inputs[0])
        for value in list(graph.inputs):
            if not value.uses():
                graph.inputs.remove(value)
            elif value.shape is not None and len(value.shape) < 4:
                self._widen(graph, value)
        return self.result(model)

    def _widen(self, graph: ir.Graph, value: ir.Value) -> None:
        """Put ones behind an input's batch; the graph goes on without them."""
        shape = value.shape
        assert shape is not None
        ones = 4 - len(shape)
        uses = list(value.uses())
        inner = _narrowed(graph, graph[0], value, list(range(1, 1 + ones)))
        for node, index in uses:
            node.replace_input_with(index, inner)
        inner.shape = shape
        value.shape = ir.Shape([shape[0], *[1] * ones, *shape[1:]])
        self.fire()


def _asks_batch(node: ir.Node) -> bool:
    """Whether a node only wants to know a batch, which is the same for all inputs."""
    ends = [node.attributes.get(name) for name in ("start", "end")]
    return node.op_type == "Shape" and [e and e.as_int() for e in ends] == [0, 1]


def _narrowed(graph: ir.Graph, before: ir.Node, value: ir.Value, axes: list[int]) -> ir.Value:
    """The value without these axes, which are 1."""
    build = Builder(graph, before=before)
    inner = ir.Value(name=f"{value.name}_narrow", type=value.type)
    node = ir.Node("", "Squeeze", [value, build.integers(axes)], outputs=[inner])
    graph.insert_before(before, node)
    return inner
