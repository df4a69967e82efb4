"""What the compiler says about a skeleton: ports, cycle model, device memory (`skeleton.json`)."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from targets.base import DeviceMemory, Estimate
from targets.driver import PortAt
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.timeline import Timeline

RECORD_FILE = "skeleton.json"
PROFILE_FILE = "compiler_profile_0.txt"
"""As the compiler calls that of the first core; kept in a skeleton with gzip."""
PROFILES = "compiler_profile_*.txt"
"""One for each core."""

_RUNTIME = re.compile(r"flops: (\d+), runtime: ([\d.]+)ms")
_API_END = re.compile(r"API_END total_cycle:(\d+)\|b:(\d+)\|g:(\d+)")
_MOVED = re.compile(r"GDMA SUMMARY : \|dr\[0\] S2L:(\d+)\|dr\[1\] L2S:(\d+)")
_MEMORY = re.compile(r"device mem size: \d+ \(weight: (\d+), instruct: (\d+), runtime: (\d+)\)")


@dataclass(frozen=True)
class CycleModel:
    """The compiler's own estimate of one run, summed over the parts it made of the network.

    `runtime_ms` is milliseconds on the chip, `flops` arithmetic operations, `loaded` and `stored`
    bytes between device memory and local memory, all of every core. `computes` and `moves` are
    counts of instructions of the first core.
    """

    runtime_ms: float
    flops: int
    cycles: int
    computes: int
    moves: int
    loaded: int
    stored: int

    @classmethod
    def of_cores(cls, profiles: Sequence[Path]) -> "CycleModel":
        """Read every core's profile. Raises OSError and ValueError.

        The run takes as long as the slowest core; each profile states the operations of all.
        """
        models = []
        for profile in profiles:
            with profile.open(errors="replace") as lines:
                models.append(cls.parse(lines))
        return replace(
            models[0],
            runtime_ms=max(model.runtime_ms for model in models),
            cycles=max(model.cycles for model in models),
            loaded=sum(model.loaded for model in models),
            stored=sum(model.stored for model in models),
        )

    @classmethod
    def parse(cls, profile: Iterable[str]) -> "CycleModel":
        """Read the lines of a `PROFILE_FILE`; raises ValueError when its summary is missing."""
        runtimes, ends, moved = _found(profile, (_RUNTIME, _API_END, _MOVED))
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


def _found(
    lines: Iterable[str], patterns: Sequence[re.Pattern[str]]
) -> list[list[tuple[str, ...]]]:
    """The groups of every line that matches, by pattern."""
    groups: list[list[tuple[str, ...]]] = [[] for _ in patterns]
    for line in lines:
        for pattern, found in zip(patterns, groups, strict=True):
            if match := pattern.search(line):
                found.append(match.groups())
    return groups


def device_memory(info: str) -> DeviceMemory:
    """Read the output of ``model_tool --info``; raises ValueError."""
    found = _MEMORY.search(info)
    if found is None:
        raise ValueError("no device memory in the output of model_tool --info")
    return DeviceMemory(*map(int, found.groups()))


@dataclass(frozen=True)
class StageRecord:
    """One compiled network: what it is called, takes and gives, costs and needs.

    `timeline` is None in records of earlier versions. `cores` is how many the compiler uses, which
    may be fewer than it was given.
    """

    network: str
    inputs: tuple[PortAt, ...]
    outputs: tuple[PortAt, ...]
    precision: str
    cycle_model: CycleModel
    device_memory: DeviceMemory
    timeline: Timeline | None = None
    cores: int = 1

    @classmethod
    def of(
        cls, network: str, graph: StaticGraph, precision: str, folder: Path, info: str
    ) -> "StageRecord":
        """Gather the record from the compiler's outputs; raises OSError and ValueError.

        The timeline is that of the first core.
        """
        with (folder / PROFILE_FILE).open(errors="replace") as lines:
            timeline = Timeline.read(lines)
        profiles = sorted(folder.glob(PROFILES))
        return cls(
            network,
            graph.inputs,
            graph.outputs,
            precision,
            CycleModel.of_cores(profiles),
            device_memory(info),
            timeline,
            len(profiles),
        )

    @property
    def estimate(self) -> Estimate | None:
        """What other rooms are told of it."""
        if self.timeline is None:
            return None
        return Estimate(
            engines=self.timeline.engines,
            layers=self.timeline.layers,
            operations=self.cycle_model.flops,
            loaded=self.cycle_model.loaded,
            stored=self.cycle_model.stored,
            memory=self.device_memory,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "StageRecord":
        """Read what `to_json` wrote."""
        timeline = data.get("timeline")
        return cls(
            network=data["network"],
            inputs=tuple(map(PortAt.from_json, data["inputs"])),
            outputs=tuple(map(PortAt.from_json, data["outputs"])),
            precision=data["precision"],
            cycle_model=CycleModel(**data["cycle_model"]),
            device_memory=DeviceMemory(**data["device_memory"]),
            timeline=None if timeline is None else Timeline.from_json(timeline),
            cores=data.get("cores", 1),
        )

    def save(self, folder: Path) -> None:
        """Write `skeleton.json` into a folder under construction."""
        (folder / RECORD_FILE).write_text(json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "StageRecord":
        """Read the record of a skeleton."""
        return cls.from_json(json.loads((folder / RECORD_FILE).read_text()))

    def with_timeline(self, folder: Path) -> "StageRecord":
        """Read the timeline that an earlier version left out from the profile it kept.

        Where that cannot be read, there is none.
        """
        if self.timeline is not None:
            return self
        try:
            with gzip.open(folder / f"{PROFILE_FILE}.gz", "rt", errors="replace") as lines:
                return replace(self, timeline=Timeline.read(lines))
        except (OSError, EOFError, zlib.error, ValueError):
            return self
