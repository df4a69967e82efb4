"""What the compiler says about a skeleton: ports, cycle model, device memory (`skeleton.json`)."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from targets.sophgo.graphs import PortAt, StaticGraph

RECORD_FILE = "skeleton.json"

_RUNTIME = re.compile(r"flops: (\d+), runtime: ([\d.]+)ms")
_API_END = re.compile(r"API_END total_cycle:(\d+)\|b:(\d+)\|g:(\d+)")
_MOVED = re.compile(r"GDMA SUMMARY : \|dr\[0\] S2L:(\d+)\|dr\[1\] L2S:(\d+)")
_MEMORY = re.compile(r"device mem size: \d+ \(weight: (\d+), instruct: (\d+), runtime: (\d+)\)")


@dataclass(frozen=True)
class CycleModel:
    """The compiler's own estimate of one run, summed over the parts it made of the network.

    `runtime_ms` is milliseconds on the chip, `flops` arithmetic operations, `loaded` and `stored`
    bytes between device memory and local memory, `computes` and `moves` counts of instructions.
    """

    runtime_ms: float
    flops: int
    cycles: int
    computes: int
    moves: int
    loaded: int
    stored: int

    @classmethod
    def parse(cls, profile: str) -> "CycleModel":
        """Read a `compiler_profile_0.txt`; raises ValueError when its summary is missing."""
        runtimes, ends, moved = (
            pattern.findall(profile) for pattern in (_RUNTIME, _API_END, _MOVED)
        )
        if not runtimes or not ends or not moved:
            raise ValueError("no summary of cycles, bytes and runtime in the compiler's profile")
        return cls(
            runtime_ms=sum(float(ms) for _, ms in runtimes),
            flops=sum(int(flops) for flops, _ in runtimes),
            cycles=sum(int(end[0]) for end in ends),
            computes=sum(int(end[1]) for end in ends),
            moves=sum(int(end[2]) for end in ends),
            loaded=sum(int(pair[0]) for pair in moved),
            stored=sum(int(pair[1]) for pair in moved),
        )


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on the device: weights, instructions, and tensors while it runs."""

    weights: int
    instructions: int
    runtime: int

    @classmethod
    def parse(cls, info: str) -> "DeviceMemory":
        """Read the output of ``model_tool --info``; raises ValueError."""
        found = _MEMORY.search(info)
        if found is None:
            raise ValueError("no device memory in the output of model_tool --info")
        return cls(*map(int, found.groups()))


@dataclass(frozen=True)
class StageRecord:
    """One compiled network: what it is called, takes and gives, costs and needs."""

    network: str
    inputs: tuple[PortAt, ...]
    outputs: tuple[PortAt, ...]
    precision: str
    cycle_model: CycleModel
    device_memory: DeviceMemory

    @classmethod
    def of(
        cls, network: str, graph: StaticGraph, precision: str, profile: str, info: str
    ) -> "StageRecord":
        """Gather the record from the compiler's outputs; raises ValueError."""
        return cls(
            network,
            graph.inputs,
            graph.outputs,
            precision,
            CycleModel.parse(profile),
            DeviceMemory.parse(info),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "StageRecord":
        """Read what `to_json` wrote."""
        return cls(
            network=data["network"],
            inputs=tuple(map(PortAt.from_json, data["inputs"])),
            outputs=tuple(map(PortAt.from_json, data["outputs"])),
            precision=data["precision"],
            cycle_model=CycleModel(**data["cycle_model"]),
            device_memory=DeviceMemory(**data["device_memory"]),
        )

    def save(self, folder: Path) -> None:
        """Write `skeleton.json` into a folder under construction."""
        (folder / RECORD_FILE).write_text(json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "StageRecord":
        """Read the record of a skeleton."""
        return cls.from_json(json.loads((folder / RECORD_FILE).read_text()))
