"""What must be resident on a phone while a stage runs, and whether it has the room.

Weights are counted twice where they are loaded: as the file's bytes of the largest graph on their
way, and as CLML's or OpenCL's own. What MNN takes for a part of a program is among its weights and
tensors. What the system and the driver take is assumed, not measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.base import Artifact
from targets.manifest import Manifest
from targets.mnn.model import WEIGHTS_SUFFIX
from targets.tvm.binding import place
from targets.tvm.compilation import CLML_FILE
from targets.tvm.host_operator import MODEL, weights_file
from targets.tvm.program import PROGRAM_FILE, Program

SYSTEM = {12: 5.0e9, 16: 6.0e9}
"""Bytes that Android, its services and the screen keep of a phone with so many gigabytes. Assumed:
a phone with 12 GB shows 6 to 7 GB available after a start."""

DRIVER = 0.4e9
"""OpenCL's driver, compiled kernels, the runtime and its code. Assumed."""

MNN_WORK = 0.15e9
"""MNN's own code and a text encoder's activations at 77 tokens. Assumed."""


@dataclass(frozen=True)
class Resident:
    """One artifact in memory, in bytes. `loading` is what exists besides while it is loaded."""

    artifact: Artifact
    weights: int
    activations: int
    loading: int
    runtime: int

    @property
    def total(self) -> int:
        """What it takes at most: weights, and the larger of loading them and running."""
        return self.weights + self.runtime + max(self.activations, self.loading)


@dataclass(frozen=True)
class Plan:
    """The stages of one size: what is resident in each, one after the other."""

    stages: tuple[tuple[str, tuple[Resident, ...]], ...]

    @property
    def staged(self) -> int:
        """Bytes of the largest stage, each in a process of its own."""
        return max(sum(r.total for r in residents) for _, residents in self.stages)

    @property
    def together(self) -> int:
        """Bytes of all stages in one process."""
        everything = [r for _, residents in self.stages for r in residents]
        working = max(max(r.activations, r.loading) for r in everything)
        runtime = max(r.runtime for r in everything)
        return sum(r.weights for r in everything) + working + runtime

    def refusal(self, gigabytes: int, *, staged: bool) -> str | None:
        """Why a phone with so much memory cannot hold it; None where it can."""
        room = gigabytes * 1e9 - SYSTEM[gigabytes]
        needed = self.staged if staged else self.together
        if needed <= room:
            return None
        largest = max((r for _, rs in self.stages for r in rs), key=lambda r: r.total)
        how = "in stages" if staged else "in one process"
        return (
            f"a phone with {gigabytes} GB has about {room / 1e9:.1f} GB for it, and {how} it needs "
            f"{needed / 1e9:.1f} GB, most of it {largest.artifact.label} "
            f"({largest.weights / 1e9:.1f} GB of weights, {largest.activations / 1e9:.1f} GB of "
            "tensors)"
        )


def plan(manifest: Manifest, artifacts: Iterable[Artifact]) -> Plan:
    """The plan for artifacts of one size."""
    groups: dict[str, list[Resident]] = {"text": [], "denoise": [], "decode": []}
    for artifact in artifacts:
        stage = {"unet": "denoise", "vae_decoder": "decode"}.get(artifact.component, "text")
        groups[stage].append(_resident(manifest.folder, artifact))
    return Plan(tuple((stage, tuple(found)) for stage, found in groups.items() if found))


def _resident(folder: Path, artifact: Artifact) -> Resident:
    path = folder / artifact.path
    program_file = path.parent / f"{artifact.size or 'any'}.{PROGRAM_FILE}"
    if not program_file.is_file():  # a text encoder of MNN's
        weights = path.with_name(path.name + WEIGHTS_SUFFIX).stat().st_size
        return Resident(artifact, weights, round(MNN_WORK), 0, 0)
    program = Program.load(program_file)
    parameters = {p.name: p for p in (*program.parameters, *program.constants)}
    places = place(parameters)
    graphs = path.parent / f"{artifact.size or 'any'}.{CLML_FILE}"
    part = weights_file(path.parent / f"{artifact.size or 'any'}.{MODEL}")
    on_host = part.stat().st_size if program.host is not None else 0
    host = 0 if program.host is None else program.host.memory
    return Resident(
        artifact,
        weights=sum(p.nbytes for p in places.values()) + on_host,
        activations=program.activations + program.pool + host,
        loading=_largest_graph(graphs, {name: p.nbytes for name, p in places.items()}),
        runtime=round(DRIVER),
    )


def _largest_graph(graphs: Path, sizes: dict[str, int]) -> int:
    import json

    if not graphs.is_file():
        return max(sizes.values(), default=0)
    described: Sequence[dict[str, list[str]]] = json.loads(graphs.read_text())
    return max((sum(sizes[name] for name in g["constants"]) for g in described), default=0)
