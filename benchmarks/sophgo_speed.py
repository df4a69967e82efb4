"""What one run of a component costs on a Sophgo chip by the compiler's cycle model, and on what.

    python -m benchmarks.sophgo_speed unet --size 512x512

Needs tpu-mlir and no checkpoint: the shipped template is compiled with placeholders and cached.
"""

import argparse
import gzip
import re
import sys
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import onnx_ir as ir

from converter.families.published import SD15, SDXL
from converter.files import sha256_of
from converter.profiles import get_profile
from converter.sizes import Size, parse_sizes
from converter.template import load_template
from passes import pipelines
from sdconv.console import progress_bar
from targets.base import CompileJob
from targets.sophgo.record import PROFILE_FILE, StageRecord
from targets.sophgo.target import SophgoTarget

FAMILIES = {"sd15": (SD15, "sd-lcm-tpu"), "sdxl": (SDXL, "diffusers")}
"""Architecture, and the profile that is measured unless another is asked for."""

INSTRUCTION = re.compile(
    r"(\w+?)_\d+\|\w+\|s:(\d+)\|b:\d+\|g:\d+\|e:(\d+)\|t:\d+(?:\|dr:\d\|sz:(\d+))?"
)
"""One line of the compiler's profile: operator, start and end in ns, and bytes where data moves."""

Span = tuple[int, int]
"""From when to when, in ns."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of the chip: a computation, or a transfer of `moved` bytes."""

    operator: str
    span: Span
    moved: int | None

    @property
    def computes(self) -> bool:
        """Whether it occupies the compute engine rather than the memory's."""
        return self.moved is None


def main() -> None:
    """Compile one component, or find it compiled, and print two Markdown tables."""
    parser = argparse.ArgumentParser(description="Predict a component's latency on a chip.")
    parser.add_argument("component")
    parser.add_argument("--family", choices=FAMILIES, default="sd15")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--profile")
    parser.add_argument("--precision")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--chip", default="bm1684x")
    options = parser.parse_args()
    target = SophgoTarget(options.chip)
    with tempfile.TemporaryDirectory() as folder:
        job = _job(options, target, Path(folder))
        with progress_bar() as progress:
            made = target.skeleton(job, progress)
    model = StageRecord.load(made.path).cycle_model
    with gzip.open(made.path / f"{PROFILE_FILE}.gz", "rt") as packed:
        instructions = list(read_profile(packed))
    sys.stdout.write(f"{job.label}, {options.chip}: {model.runtime_ms:.2f} ms\n\n")
    sys.stdout.writelines(f"{row}\n" for row in rows(instructions))


def _job(options: argparse.Namespace, target: SophgoTarget, folder: Path) -> CompileJob:
    """The job that compiling an exported bundle would be."""
    architecture, profile_name = FAMILIES[options.family]
    profile = get_profile(options.profile or profile_name)
    ports = profile.residual_ports(architecture)
    name, (size,) = options.component, parse_sizes(options.size)
    graph, _ = load_template(name, architecture, residual_ports=ports)
    canonical = profile.canonical(name, architecture)
    inputs = {n: (p.name, p.dtype) for n, p in profile.inputs(name, canonical).items()}
    pipelines.present(inputs, profile.outputs(name, canonical)).run(graph)
    path = folder / "graph.onnx"
    ir.save(graph, path)
    interface = profile.interface(name, architecture)
    at: Size | None = size if interface.has_size else None
    return CompileJob(
        component=name,
        graph=path,
        graph_sha256=sha256_of(path),
        input_shapes=tuple(interface.input_shapes(1, at).items()),
        size=at,
        batch=1,
        precision=options.precision or target.default_precision(name),
        effort=options.effort,
    )


def read_profile(lines: Iterable[str]) -> Iterator[Instruction]:
    """The instructions in a `compiler_profile_0.txt`."""
    for line in lines:
        for operator, start, end, moved in INSTRUCTION.findall(line):
            yield Instruction(operator, (int(start), int(end)), int(moved) if moved else None)


def rows(instructions: Sequence[Instruction]) -> Iterator[str]:
    """The tables: what the engines do together, then each operator's share."""
    busy = merged(i.span for i in instructions if i.computes)
    either = merged(i.span for i in instructions)
    computing, active = _length(busy), _length(either)
    yield "| computing, ms | moving data only, ms | neither, ms |"
    yield "|---|---|---|"
    end = max(i.span[1] for i in instructions)
    yield f"| {_ms(computing)} | {_ms(active - computing)} | {_ms(end - active)} |"
    yield ""
    yield "| operator | computing, ms | moving data only, ms | moved, MB |"
    yield "|---|---|---|---|"
    shares: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for instruction in instructions:
        share = shares[instruction.operator]
        if instruction.computes:
            share[0] += instruction.span[1] - instruction.span[0]
        else:
            share[1] += _outside(instruction.span, busy)
            share[2] += instruction.moved or 0
    for operator, (computes, alone, moved) in sorted(
        shares.items(), key=lambda item: -item[1][0] - item[1][1]
    ):
        yield f"| {operator} | {_ms(computes)} | {_ms(alone)} | {moved / 1e6:.0f} |"


def merged(spans: Iterable[Span]) -> list[Span]:
    """The time that spans cover, as spans that neither touch nor overlap, in order."""
    covered: list[Span] = []
    for start, end in sorted(spans):
        if covered and start <= covered[-1][1]:
            covered[-1] = (covered[-1][0], max(covered[-1][1], end))
        else:
            covered.append((start, end))
    return covered


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)


def _outside(span: Span, covered: Sequence[Span]) -> int:
    """How much of a span lies outside `covered`, which is as `merged` returns it."""
    start, end = span
    first = max(0, bisect_right(covered, span) - 1)
    inside = 0
    for begin, finish in islice(covered, first, None):
        if begin >= end:
            break
        inside += max(0, min(finish, end) - max(begin, start))
    return end - start - inside


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f}"


if __name__ == "__main__":
    main()
