"""Parts and other shapes of weights: nodes that say what is seen of a weight, moving no byte.

Whoever compiles the graph folds them (`targets/sophgo/inside/importer.py`). The name of a view
begins with that of its weight, so that it can be told whose it is.
"""

from collections.abc import Sequence

import onnx_ir as ir

from passes.building import Builder


def part_of(build: Builder, weight: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
    """Elements `start` to `stop` along an axis of a weight."""
    assert weight.shape is not None and weight.name is not None
    extents = list(weight.shape.numpy())
    extents[axis] = stop - start
    ends = [build.integers([number]) for number in (start, stop, axis)]
    part = build.add("Slice", [weight, *ends], extents)
    part.name = f"{weight.name}.{start}-{stop}"
    return part


def reshaped(build: Builder, weight: ir.Value, extents: Sequence[int]) -> ir.Value:
    """The same elements of a weight in other extents."""
    view = build.reshaped(weight, extents)
    view.name = f"{weight.name}.{'x'.join(map(str, extents))}"
    return view


def with_ones(build: Builder, weight: ir.Value, axes: Sequence[int]) -> ir.Value:
    """A weight with extents of 1 at these axes of the outcome."""
    assert weight.shape is not None and weight.name is not None
    extents = list(weight.shape.numpy())
    for axis in axes:
        extents.insert(axis, 1)
    wide = build.add("Unsqueeze", [weight, build.integers(axes)], extents)
    wide.name = f"{weight.name}.{len(extents)}d"
    return wide
