"""Where the time of a run goes: the lines of the compiler's profile, one an instruction.

    Conv2D_3204|CONV|s:1255096|b:11579|g:1451|e:1255239|t:144
    Load_56|GDMA_TENSOR|s:23|b:0|g:12|e:423|t:401|dr:0|sz:8192|bw:20.4

The layer, what the instruction does, its first and last cycle; those with a direction (`dr`) move
data, the others compute; one of each engine may share a line, each with its numbers (on a BM1690
`h` and `sd` besides `b` and `g`). A network that is compiled in parts begins again at 0 after each
`API_END`. The parts' cycles are milliseconds by their summaries (`flops: ..., runtime: ...ms`).
"""

import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.weights import Array
from targets.base import EngineTimes, LayerTime

KINDS = {
    "Active": "activation",
    "Add": "addition",
    "AddConst": "addition",
    "Cast": "cast",
    "Concat": "concatenation",
    "Conv2D": "convolution",
    "FAttention": "attention",
    "Gather": "gather",
    "GroupNorm": "group norm",
    "LayerNorm": "layer norm",
    "Load": "load",
    "MatMul": "matrix product",
    "Mul": "multiplication",
    "MulConst": "multiplication",
    "Permute": "permutation",
    "Reshape": "reshape",
    "Softmax": "softmax",
    "Store": "store",
    "Upsample": "upsampling",
}
"""The vendor's name of a layer -> a user's words. Others are called as the vendor calls them.

Load and store move data at the edges of a group of layers that work inside local memory.
"""

INSTRUCTION = re.compile(
    r"(?P<layer>\w*?)(?:_\d+)?\|(?!SDMA_)(?P<moves>GDMA_)?\w+\|s:(?P<start>\d+)"
    r"(?:\|(?:b|g|h|sd):\d+)+\|e:(?P<end>\d+)\|t:\d+"
)
"""Of the compute engine, or of DMA (`moves`); the messages of a BM1690's SDMA take no time."""
_END = re.compile(r"API_END total_cycle:(\d+)")
_RUNTIME = re.compile(r"flops: \d+, runtime: ([\d.]+)ms")


@dataclass(frozen=True)
class Timeline:
    """One run: by engine, and by kind of layer, the longest first."""

    engines: EngineTimes
    layers: tuple[LayerTime, ...]

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Timeline":
        """Read a `compiler_profile_0.txt`; raises ValueError for one that contradicts itself."""
        part, parts, runtimes = _Part(), [], []
        for line in lines:
            for found in INSTRUCTION.finditer(line):
                part.add(found["layer"], int(found["start"]), int(found["end"]), found["moves"])
            if end := _END.search(line):
                parts.append(part.closed(int(end[1])))
                part = _Part()
            if runtime := _RUNTIME.search(line):
                runtimes.append(float(runtime[1]))
        if not parts or len(parts) != len(runtimes):
            raise ValueError(
                f"{len(parts)} parts of a network and {len(runtimes)} runtimes in the "
                "compiler's profile"
            )
        return _joined(parts, runtimes)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Timeline":
        """Read what `dataclasses.asdict` gives."""
        layers = tuple(LayerTime(**layer) for layer in data["layers"])
        return cls(EngineTimes(**data["engines"]), layers)


@dataclass
class _Engine:
    """Instructions of one engine: first cycle, the cycle after the last, the layer's kind."""

    starts: "array[int]" = field(default_factory=lambda: array("q"))
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    kinds: "array[int]" = field(default_factory=lambda: array("q"))

    def busy(self) -> tuple[Array, Array, Array]:
        """Starts, ends and kinds in the order of time; cycles that overlap are the earlier's."""
        starts, ends, kinds = (
            np.array(column, np.int64) for column in (self.starts, self.ends, self.kinds)
        )
        order = np.argsort(starts, kind="stable")
        starts, ends, kinds = starts[order], ends[order], kinds[order]
        before = np.maximum.accumulate(np.concatenate([[0], ends]))
        return np.maximum(starts, before[:-1]), before[1:], kinds


@dataclass(frozen=True)
class _Cycles:
    """A part of a network: cycles in all, without any engine, with both; by kind the others."""

    total: int
    idle: float
    both: float
    compute: dict[str, float]
    dma_alone: dict[str, float]


@dataclass
class _Part:
    """The instructions of a part, as they are read."""

    compute: _Engine = field(default_factory=_Engine)
    dma: _Engine = field(default_factory=_Engine)
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, layer: str, first: int, last: int, moves: str | None) -> None:
        """Note one instruction."""
        engine = self.compute if moves is None else self.dma
        kind = KINDS.get(layer, layer) or "messages between cores"
        engine.starts.append(first)
        engine.ends.append(last + 1)
        engine.kinds.append(self.kinds.setdefault(kind, len(self.kinds)))

    def closed(self, total: int) -> _Cycles:
        """Share out a part's `total` cycles; raises ValueError where they do not suffice."""
        starts, ends, kinds = self.compute.busy()
        moving_from, moving_to, moved = self.dma.busy()
        if max(ends.max(initial=0), moving_to.max(initial=0)) > total:
            raise ValueError(f"an instruction ends after the last of {total} cycles")
        # Cycles spent computing before each moment: it grows inside the instructions alone.
        moments = np.stack([starts, ends], axis=1).ravel()
        spent = np.cumsum(ends - starts)
        grown = np.stack([spent - (ends - starts), spent], axis=1).ravel()
        moments, grown = np.append(0, moments), np.append(0, grown)
        meanwhile = np.interp(moving_to, moments, grown) - np.interp(moving_from, moments, grown)
        alone = moving_to - moving_from - meanwhile
        compute = np.bincount(kinds, ends - starts, len(self.kinds))
        dma_alone = np.bincount(moved, alone, len(self.kinds))
        return _Cycles(
            total,
            float(total - compute.sum() - dma_alone.sum()),
            float(meanwhile.sum()),
            dict(zip(self.kinds, compute.tolist(), strict=True)),
            dict(zip(self.kinds, dma_alone.tolist(), strict=True)),
        )


def _joined(parts: list[_Cycles], runtimes: list[float]) -> Timeline:
    """Put parts one behind another, in milliseconds."""
    idle = both = 0.0
    compute: dict[str, float] = {}
    dma: dict[str, float] = {}
    for part, runtime in zip(parts, runtimes, strict=True):
        ms = runtime / part.total
        idle, both = idle + ms * part.idle, both + ms * part.both
        for sums, cycles in ((compute, part.compute), (dma, part.dma_alone)):
            for kind, count in cycles.items():
                sums[kind] = sums.get(kind, 0.0) + ms * count
    layers = [LayerTime(kind, _ms(compute[kind]), _ms(dma[kind])) for kind in compute]
    alone = sum(compute.values()) - both
    engines = EngineTimes(_ms(alone), _ms(both), _ms(sum(dma.values())), _ms(idle))
    return Timeline(engines, tuple(sorted(layers, key=lambda layer: layer.ms, reverse=True)))


def _ms(exact: float) -> float:
    """To the nanosecond, as the compiler states the runtime."""
    return round(exact, 6)
