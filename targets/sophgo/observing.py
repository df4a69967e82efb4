"""How far the values of a network reach: it is run on calibration data, in float32, and looked at.

ONNX Runtime does that with the weights mapped from their file. (tpu-mlir's own
`run_calibration.py` holds every tensor of a network at once, 24 GB for SD1.5's UNet at 512x512.)
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.weights import Array
from passes.building import Builder
from passes.linked_weights import read_graph
from targets.base import ToolchainError
from targets.calibration import CalibrationData
from targets.onnx_values import OnnxValues, fixed_values

SAMPLES = 32
"""Of more inputs so many at even distances are taken: every prompt, and every part of the way."""

AT_ONCE = 3 << 30
"""Bytes of tensors that one run hands out: less than lowering takes for a network that large."""

BINS = 2048
"""Of a histogram."""

SHARES = np.linspace(0.3, 1.0, 71)
"""Thresholds that are tried, as shares of the largest value."""

PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of a tensor, and the `threshold` at which 8 bits should end.

    Values beyond it are cut off, for which all others get finer steps: it is where that loses
    least of what is made of the tensor, each sample counting the same.
    """

    low: float
    high: float
    threshold: float

    @property
    def reach(self) -> float:
        """The largest value without its sign."""
        return max(abs(self.low), abs(self.high))

    def scaled(self, factor: float) -> "Range":
        """That of so many times the tensor."""
        low, high = sorted((factor * self.low, factor * self.high))
        return Range(low, high, abs(factor) * self.threshold)


def observe(
    graph: Path,
    weights: Path,
    data: CalibrationData,
    report: Callable[[float], None],
    *,
    everything: bool = False,
) -> dict[str, Range]:
    """The ranges of what is multiplied by weights and of the products; or of every tensor.

    `graph` is one of fixed shapes, `weights` the file that its weights lie in. `report` is told
    the fraction done. Raises ToolchainError where values are not finite.
    """
    files = sorted(data.folder.glob("*.npz"))
    samples = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(SAMPLES, len(files)))]
    model = read_graph(graph)
    types = {v.name: v.dtype.numpy() for v in model.graph.inputs if v.name and v.dtype}
    energies = _energies(graph, weights.parent)
    network = OnnxValues(graph, as_written=True, weights=weights.parent)
    portions = _portions(model, everything=everything)
    ranges: dict[str, Range] = {}
    for number, names in enumerate(portions):
        spreads = {name: Spread() for name in names}
        for done, sample in enumerate(samples):
            with np.load(sample) as arrays:
                given = {name: arrays[name].astype(dtype) for name, dtype in types.items()}
            computed = [name for name in names if name not in given]
            values = {**given, **(network.layers(given, computed) if computed else {})}
            for name, spread in spreads.items():
                spread.add(values[name], energies.get(name))
            report((number + (done + 1) / len(samples)) / len(portions))
        broken = [n for n, spread in spreads.items() if not np.isfinite(spread.low + spread.high)]
        if broken:
            raise ToolchainError(f"infinite values or NaN in {', '.join(broken[:3])}")
        ranges.update((name, spread.range()) for name, spread in spreads.items())
    return ranges


@dataclass
class Spread:
    """The values of a tensor, sample by sample: a histogram of them without their sign."""

    low: float = 0.0
    high: float = 0.0
    width: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(BINS))

    def add(self, values: Array, energy: Array | None) -> None:
        """Note one sample.

        A value counts as much as its channel's `energy` says, which broadcasts to the values.
        """
        self.low = float(np.minimum(self.low, values.min()))  # NaN stays
        self.high = float(np.maximum(self.high, values.max()))
        sizes = np.abs(values)
        largest = float(sizes.max())
        if largest == 0 or not np.isfinite(largest):
            return
        self._widen(largest)
        bins = np.minimum(sizes / self.width, BINS - 1).astype(np.int32)
        share = np.broadcast_to(np.float32(1) if energy is None else energy, values.shape)
        counts = np.bincount(bins.ravel(), share.ravel(), BINS)
        self.counts += counts / np.vdot(
            share.astype(np.float64), np.square(sizes, dtype=np.float64)
        )

    def _widen(self, largest: float) -> None:
        """Make the bins wide enough for a value, by a power of two."""
        if self.width == 0:
            self.width = largest / BINS
        while largest > self.width * BINS:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.width *= 2

    def range(self) -> Range:
        """What was seen, and the threshold that loses least."""
        reach, steps = max(-self.low, self.high), 255 if self.low >= 0 else 127
        middles = (np.arange(BINS) + 0.5) * self.width
        losses = [
            float(self.counts @ np.square(middles - _rounded(middles, threshold, steps)))
            for threshold in SHARES * reach
        ]
        return Range(self.low, self.high, float(SHARES[np.argmin(losses)] * reach))


def _rounded(values: Array, threshold: float, steps: int) -> Array:
    """To one of so many steps up to a threshold."""
    step = max(threshold / steps, np.finfo(np.float64).tiny)
    rounded: Array = np.minimum(np.round(values / step), steps) * step
    return rounded


def _portions(model: ir.Model, *, everything: bool) -> list[list[str]]:
    """The names of the tensors to look at, as many at a time as `AT_ONCE` allows."""
    portions: list[list[str]] = []
    room = 0
    for value in dict.fromkeys(_watched(model, everything=everything)):
        assert value.name is not None and value.shape is not None
        nbytes = 4 * int(np.prod(value.shape.numpy(), dtype=np.int64))
        if not portions or nbytes > room:
            portions.append([])
            room = AT_ONCE
        portions[-1].append(value.name)
        room -= nbytes
    return portions


def _watched(model: ir.Model, *, everything: bool) -> Iterator[ir.Value]:
    """What is multiplied by weights, and what that gives; or all."""
    fixed = fixed_values(model.graph)
    for node in model.graph:
        data = [value for value in node.inputs if value is not None and value not in fixed]
        if everything and data:
            yield from (v for v in (*data, *node.outputs) if v.dtype == ir.DataType.FLOAT)
        elif _multiplies(node, fixed):
            yield data[0]
            yield from _results(node, fixed)


def _results(node: ir.Node, fixed: set[ir.Value | None]) -> Iterator[ir.Value]:
    """What a node gives, with a bias added to it, and parts of that."""
    yield from node.outputs
    for user, _ in node.outputs[0].uses():
        if user.op_type == "Split" or (user.op_type == "Add" and not fixed.isdisjoint(user.inputs)):
            yield from _results(user, fixed)


def _multiplies(node: ir.Node, fixed: set[ir.Value | None]) -> bool:
    """Whether it is a product of something with a weight on its right."""
    return node.op_type in PRODUCTS and node.inputs[0] not in fixed and node.inputs[1] in fixed


def _energies(graph: Path, weights: Path) -> dict[str, Array]:
    """For each tensor that weights are multiplied by: how much its channels count.

    That is the sum of squares of all weights that a channel meets; it broadcasts to the tensor.
    """
    model = read_graph(graph)
    fixed = fixed_values(model.graph)
    nodes = [node for node in model.graph if _multiplies(node, fixed)]
    model.graph.outputs.clear()
    model.graph.outputs.extend(_energy(model.graph, node) for node in nodes)
    model.graph.inputs.clear()
    fixed = fixed_values(model.graph)  # the sums are now among them
    model.graph.remove([n for n in model.graph if not fixed.issuperset(n.inputs)], safe=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "energies.onnx")
        path.write_bytes(ir.to_proto(model).SerializeToString())
        found = OnnxValues(path, as_written=True, weights=weights).infer({})
    energies: dict[str, Array] = {}
    for node, energy in zip(nodes, found.values(), strict=True):
        assert node.inputs[0] is not None and node.inputs[0].name is not None
        name = node.inputs[0].name
        energies[name] = energies[name] + energy if name in energies else energy
    return energies


def _energy(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """The sum of squares of the weights by which a node multiplies a channel."""
    weight, build = node.inputs[1], Builder(graph, before=node)
    assert weight is not None and weight.shape is not None
    extents = weight.shape.numpy()
    convolves = node.op_type == "Conv"
    turned = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    kept = 1 if convolves else len(extents) - (1 if turned else 2)
    axes = build.integers([axis for axis in range(len(extents)) if axis != kept])
    shape = [1, extents[1], 1, 1] if convolves else [extents[kept]]
    keep = ir.AttrInt64("keepdims", int(convolves))
    return build.add("ReduceSumSquare", [weight, axes], shape, [keep])
