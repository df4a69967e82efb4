"""Weights that lie in a file of somebody else's: as stored there, widened and turned by the graph.

A linked weight ``W`` is an initializer ``W.stored`` of the file's own dtype and shape, behind it
one or two nodes (Transpose, Cast; Identity where nothing is to be done), the last of which gives
``W`` as every other graph has it. Passes and targets never see this: `read_graph` takes it back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from passes.weights import (
    STORED,
    WEIGHTS_FILE,
    Place,
    plan_offsets,
    unwritten,
    weight_places,
    weights_of,
)


@dataclass(frozen=True)
class Link:
    """Where a weight's bytes lie: `offset` of the file `location`, beside the graph.

    `dtype` is a numpy name; `transposed`: the matrix lies there transposed.
    """

    location: str
    offset: int
    dtype: str
    transposed: bool


def read_graph(path: Path) -> ir.Model:
    """Read an ONNX graph without touching its external data; no weight of it is linked."""
    model = ir.load(path)
    if unlink_weights(model):
        plan_offsets(model)
    return model


def link_weights(model: ir.Model, links: Mapping[str, Link]) -> None:
    """Let these weights point into other files; the others move together in their own."""
    graph, exchanged = model.graph, {}
    for name, link in links.items():
        weight = graph.initializers[name]
        assert weight.shape is not None and weight.dtype is not None
        shape = ir.Shape(weight.shape.numpy()[::-1] if link.transposed else weight.shape.numpy())
        dtype = ir.DataType.from_numpy(np.dtype(link.dtype))
        tensor = unwritten(link.location, name + STORED, shape, dtype, link.offset)
        stored = ir.Value(
            name=name + STORED, shape=shape, type=ir.TensorType(dtype), const_value=tensor
        )
        stored.metadata_props.update(weight.metadata_props)
        exchanged[name] = stored
        nodes = _nodes(stored, link, dtype, weight.dtype)
        weight.const_value = None
        weight.replace_all_uses_with(nodes[-1].outputs[0])
        nodes[-1].outputs[0].name = name
        nodes[-1].outputs[0].shape, nodes[-1].outputs[0].type = weight.shape, weight.type
        graph.insert_before(graph[0], nodes)
    _exchange(graph, exchanged)
    plan_offsets(model)


def unlink_weights(model: ir.Model) -> dict[str, Link]:
    """Take `link_weights` back, and return what was linked; those weights have no place then."""
    graph, links, exchanged = model.graph, {}, {}
    for stored_name, stored in list(weights_of(model).items()):
        if not stored_name.endswith(STORED):
            continue
        tensor = stored.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        name, nodes, value = stored_name.removesuffix(STORED), [], stored
        while value.name != name:
            ((node, _),) = value.uses()
            nodes.append(node)
            value = node.outputs[0]
        assert value.shape is not None and value.dtype is not None
        links[name] = Link(
            str(tensor.location),
            tensor.offset or 0,
            tensor.dtype.numpy().name,
            any(node.op_type == "Transpose" for node in nodes),
        )
        weight = ir.Value(name=name, shape=value.shape, type=value.type)
        weight.const_value = unwritten(WEIGHTS_FILE, name, value.shape, value.dtype, 0)
        value.replace_all_uses_with(weight)
        value.name = None
        for node in reversed(nodes):
            graph.remove(node, safe=True)
        weight.metadata_props.update(stored.metadata_props)
        exchanged[stored_name] = weight
    _exchange(graph, exchanged)
    return links


def _exchange(graph: ir.Graph, exchanged: Mapping[str, ir.Value]) -> None:
    """Put initializers in the places of those of the given names.

    Their order is in the graph's bytes: a graph whose weights were linked is that of any other
    export again.
    """
    every = [exchanged.get(name, value) for name, value in graph.initializers.items()]
    graph.initializers.clear()
    for value in every:
        assert value.name is not None
        graph.initializers[value.name] = value


def own_places(model: ir.Model) -> dict[str, Place]:
    """The places of the weights that are not linked."""
    return {n: place for n, place in weight_places(model).items() if not n.endswith(STORED)}


def _nodes(stored: ir.Value, link: Link, dtype: ir.DataType, wanted: ir.DataType) -> list[ir.Node]:
    nodes: list[ir.Node] = []
    if link.transposed:
        nodes.append(ir.Node("", "Transpose", [stored], [ir.AttrInt64s("perm", [1, 0])]))
    if dtype != wanted or not nodes:
        before = nodes[-1].outputs[0] if nodes else stored
        if dtype == wanted:
            nodes.append(ir.Node("", "Identity", [before]))
        else:
            nodes.append(ir.Node("", "Cast", [before], [ir.AttrInt64("to", wanted)]))
    return nodes
