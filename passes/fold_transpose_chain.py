"""Transpose(Reshape(Transpose(X))) -> Transpose(X), wherever the chain moves axes and no more.

Attention exports write the transposed key as Transpose, Reshape to three dimensions, Transpose,
Reshape back. Some compilers run that literally: on a Sophgo BM1684X one Transpose instead makes
the SD1.5 UNet 2.6 times as fast.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from passes.base import Pass
from passes.building import take_over

Order = tuple[int, ...]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
LINKS = ("Transpose", "Reshape")


class FoldTransposeChainPass(Pass):
    """Replace a run of Transpose and Reshape that is equal to one Transpose by that Transpose.

    1. The longest such run in each chain is replaced, then the next; a chain is links with one
       user each.
    2. A run that moves nothing is removed (a Reshape to the same shape counts), unless a graph
       output would then be the chain's source.
    3. A single Transpose is left as it is, and so are Reshapes alone: they cost nothing.

    Refuses when a shape on the way is not static.
    """

    name = "fold-transpose-chain"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every chain."""
        for chain in list(_chains(model.graph)):
            values = [chain[0].inputs[0], *(node.outputs[0] for node in chain)]
            if any(v is None or v.shape is None or not v.shape.is_static() for v in values):
                self.refuse(chain[0], "a shape in the chain is not static")
                continue
            while (found := _longest_run(chain)) is not None:
                place, order = found
                chain[place] = self._replace(model.graph, chain[place], order)
        return self.result(model)

    def _replace(self, graph: ir.Graph, run: list[ir.Node], order: Order) -> list[ir.Node]:
        """Put one Transpose, or nothing, where the run was; return the links there now."""
        source, last = run[0].inputs[0], run[-1].outputs[0]
        assert source is not None
        links = []
        if _moves(order):
            node = ir.Node(
                "",
                "Transpose",
                [source],
                [ir.AttrInt64s("perm", order)],
                outputs=[ir.Value(name=None, shape=last.shape, type=last.type)],
                name=run[-1].name,
            )
            graph.insert_after(run[-1], node)
            links = [node]
            take_over(last, node.outputs[0])
        else:
            ir.convenience.replace_all_uses_with(last, source, replace_graph_outputs=True)
        for link in reversed(run):
            targets = link.inputs[1:]
            graph.remove(link, safe=True)
            for target in targets:
                _drop_unused(graph, target)
        self.fire()
        return links


def _drop_unused(graph: ir.Graph, target: ir.Value | None) -> None:
    """Remove the target shape of a Reshape that is gone; runtimes warn of unused constants."""
    if target is None or not target.name or target.uses() or target.is_graph_output():
        return
    if target.is_initializer() and not isinstance(target.const_value, ir.ExternalTensor):
        del graph.initializers[target.name]


def _chains(graph: ir.Graph) -> Iterator[list[ir.Node]]:
    """Maximal runs of links in which every value but the last has one user."""
    for node in graph:
        if node.op_type not in LINKS or _next_link(_producer(node)) is node:
            continue
        chain = [node]
        while (following := _next_link(chain[-1])) is not None:
            chain.append(following)
        yield chain


def _producer(node: ir.Node) -> ir.Node | None:
    return None if node.inputs[0] is None else node.inputs[0].producer()


def _next_link(node: ir.Node | None) -> ir.Node | None:
    if node is None or node.op_type not in LINKS or node.outputs[0].is_graph_output():
        return None
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].idx != 0 or uses[0].node.op_type not in LINKS:
        return None
    following = uses[0].node
    return following if following.graph is node.graph else None  # not into a subgraph


def _longest_run(chain: list[ir.Node]) -> tuple[slice, Order] | None:
    """Where in the chain the longest run lies that should be replaced, and its axis order."""
    for length in range(len(chain), 0, -1):
        for start in range(len(chain) - length + 1):
            place = slice(start, start + length)
            run = chain[place]
            if length == 1 and run[0].op_type == "Transpose":
                continue
            order = _axis_order(run)
            if order is not None and _pays(run, order):
                return place, order
    return None


def _pays(run: list[ir.Node], order: Order) -> bool:
    if _moves(order):
        return any(node.op_type == "Transpose" for node in run)
    return not run[-1].outputs[0].is_graph_output()


def _moves(order: Order) -> bool:
    return order != tuple(range(len(order)))


def _axis_order(run: list[ir.Node]) -> Order | None:
    """The permutation of the source's axes that the run amounts to; None if it is none.

    Found by sending element numbers through the run: if the result is a transposition, the
    step between neighbours along each axis is the stride of a source axis.
    """
    source, last = run[0].inputs[0], run[-1].outputs[0]
    assert source is not None and source.shape is not None and last.shape is not None
    shape = source.shape.numpy()
    if 0 in shape or sorted(shape) != sorted(last.shape.numpy()):
        return None
    numbers = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    moved = numbers
    for node in run:
        if node.op_type == "Transpose":
            moved = moved.transpose(_permutation(node, moved.ndim))
        else:
            target = node.outputs[0].shape
            assert target is not None
            moved = moved.reshape(target.numpy())
    order = _match_axes(numbers, moved)
    return order if np.array_equal(numbers.transpose(order), moved) else None


def _permutation(node: ir.Node, rank: int) -> Order:
    attribute = node.attributes.get("perm")
    return tuple(attribute.as_ints()) if attribute else tuple(range(rank))[::-1]


def _match_axes(numbers: Numbers, moved: Numbers) -> Order:
    free = list(range(numbers.ndim))
    order = []
    for axis, extent in enumerate(moved.shape):
        neighbour = tuple(int(a == axis) for a in range(moved.ndim))
        step = int(moved[neighbour]) - int(moved.flat[0]) if extent > 1 else None
        match = (a for a in free if _step(numbers, a) == step and numbers.shape[a] == extent)
        chosen = next(match, free[0])  # a wrong guess is caught by the comparison that follows
        free.remove(chosen)
        order.append(chosen)
    return tuple(order)


def _step(numbers: Numbers, axis: int) -> int | None:
    return numbers.strides[axis] // numbers.itemsize if numbers.shape[axis] > 1 else None
