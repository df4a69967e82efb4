"""A part of a graph as a graph of its own: from some values to some others."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from passes.weights import weights_of


class StaticGraph:
    """A graph of fixed shapes that parts can be cut out of. Weights stay where they are."""

    def __init__(self, model: ir.Model) -> None:
        self._proto = ir.to_proto(model)
        self._makers = {name: node for node in self._proto.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        self._shapes: dict[str, onnx.ValueInfoProto] = {}
        graph = self._proto.graph
        for value in (*graph.value_info, *graph.input, *graph.output):
            self._shapes[value.name] = value
        self._weights = set(weights_of(model))

    @property
    def outputs(self) -> list[str]:
        """The graph's own."""
        return [value.name for value in self._proto.graph.output]

    def part(self, inputs: Collection[str], outputs: Sequence[str]) -> onnx.ModelProto:
        """The nodes between; graph inputs that they read become inputs too."""
        nodes, read = self._between(inputs, outputs)
        model = onnx.ModelProto()
        model.CopyFrom(self._proto)
        graph = model.graph
        for repeated in (graph.node, graph.input, graph.output, graph.initializer):
            del repeated[:]
        del graph.value_info[:]
        graph.node.extend(nodes)
        graph.input.extend(self._shapes[name] for name in read)
        graph.output.extend(self._shapes[name] for name in outputs)
        used = {name for node in nodes for name in node.input}
        graph.initializer.extend(t for name, t in self._constants.items() if name in used)
        return model

    def inputs_of(self, inputs: Collection[str], outputs: Sequence[str]) -> list[str]:
        """What that part reads besides constants, in the order in which it is read."""
        return self._between(inputs, outputs)[1]

    def size(self, inputs: Collection[str], outputs: Sequence[str]) -> int:
        """How many nodes that part has."""
        return len(self._between(inputs, outputs)[0])

    def within(self, value: str, distance: int, cuttable: Collection[str]) -> list[str]:
        """The values to cut at so that only nodes so far from the one of `value` remain.

        Where a value cannot be cut at, its node stays as well.
        """
        cut: dict[str, None] = {}
        seen: dict[str, int] = {}
        waiting = [(value, 0)]
        while waiting:
            name, depth = waiting.pop(0)
            if name in seen or name not in self._makers:
                continue
            seen[name] = depth
            for operand in self._makers[name].input:
                if operand in self._makers and depth >= distance and operand in cuttable:
                    cut[operand] = None
                else:
                    waiting.append((operand, depth + 1))
        return [name for name in cut if name not in seen]

    def inner(self, inputs: Collection[str], outputs: Sequence[str]) -> list[str]:
        """The values inside that part, the nearest to its outputs last."""
        nodes, _ = self._between(inputs, outputs)
        return [name for node in nodes for name in node.output if name not in outputs]

    def _between(
        self, inputs: Collection[str], outputs: Sequence[str]
    ) -> tuple[list[onnx.NodeProto], list[str]]:
        wanted, read = set[int](), dict[str, None]()
        waiting = list(outputs)
        while waiting:
            name = waiting.pop()
            if name not in self._makers or (name in inputs and name not in outputs):
                if name and name not in self._constants:
                    read[name] = None
                continue
            node = self._makers[name]
            if id(node) not in wanted:
                wanted.add(id(node))
                waiting += node.input
        nodes = [node for node in self._proto.graph.node if id(node) in wanted]
        order = {name: place for place, name in enumerate(self._names_in_order(nodes))}
        return nodes, sorted(read, key=order.__getitem__)

    @staticmethod
    def _names_in_order(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
        yield from dict.fromkeys(name for node in nodes for name in node.input)


def embed_weights(model: onnx.ModelProto, file: Path) -> None:
    """Put the weights, which lie in `file`, into the model itself.

    The onnx package's own loader refuses a file with two names, as an artifact's weights have.
    """
    with file.open("rb") as opened:
        for tensor in model.graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            place = {entry.key: int(entry.value) for entry in tensor.external_data
                     if entry.key != "location"}  # fmt: skip
            opened.seek(place.get("offset", 0))
            tensor.raw_data = opened.read(place["length"])
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
