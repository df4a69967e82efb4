"""What stands between a plan and this machine, each with what would help."""

import math
from collections.abc import Iterator
from dataclasses import replace

from converter.sizes import Size
from sdconv.preflight.request import Here, Need, Step, need_of
from sdconv.preflight.steps import Prepared


def problems(prepared: Prepared, here: Here) -> Iterator[str]:
    """One line for everything that is missing; nothing where the machine can do it."""
    yield from here.missing
    sizes = prepared.request.sizes
    steps = _required(prepared, sizes)
    for step in _largest_of_each_component(steps):
        if step.cost.memory > here.machine.memory:
            yield _memory_problem(step, prepared, here)
    need = need_of(steps, one_disk=here.one_disk)
    lacking = dict(_lacking(need, here))
    if not lacking:
        return
    for count in range(len(sizes) - 1, 0, -1):
        fewer = need_of(_required(prepared, sizes[:count]), one_disk=here.one_disk)
        if not dict(_lacking(fewer, here)):
            fitting = ",".join(map(str, sizes[:count]))
            lacking = {what: f"{line}; it fits with --sizes {fitting}"
                       for what, line in lacking.items()}  # fmt: skip
            break
    yield from lacking.values()


def _required(prepared: Prepared, sizes: tuple[Size, ...]) -> list[Step]:
    """What has to fit."""
    return [step for step in prepared.steps(sizes) if not step.spare]


def _largest_of_each_component(steps: list[Step]) -> list[Step]:
    largest: dict[str, Step] = {}
    for step in sorted(steps, key=lambda step: step.cost.memory):
        largest[step.component] = step
    return list(largest.values())


def _memory_problem(step: Step, prepared: Prepared, here: Here) -> str:
    needed, room = step.cost.memory, here.machine.memory
    line = (
        f"{step.label} needs {gigabytes(needed)} of memory and {gigabytes(room)} are available: "
        f"end other programs, raise the container's limit, or use a machine with "
        f"{math.ceil(needed / 1e9)} GB"
    )
    if step.verb == "judge":
        return f"{line}; compile leaves judging out with --no-validate"
    if step.verb != "compile":
        return line
    target = prepared.target
    others = [p for p in target.precisions if not target.needs_calibration(p, None)]
    fitting = [p for p in others if _memory_in(p, step, prepared) <= room]
    return f"{line}; it fits with --precision {step.component}={fitting[0]}" if fitting else line


def _memory_in(precision: str, step: Step, prepared: Prepared) -> int:
    """The peak of a component's compilation in another precision."""
    chosen = {**prepared.request.precision, step.component: precision}
    other = replace(prepared, request=replace(prepared.request, precision=chosen))
    steps = other.steps(prepared.request.sizes)
    return max(s.cost.memory for s in steps if (s.verb, s.component) == ("compile", step.component))


def _lacking(need: Need, here: Here) -> Iterator[tuple[str, str]]:
    """Each disk that is too small -> the line that says so."""
    for name, needed, disk, other in (
        ("output", need.output, here.output, "name a folder on another disk with -o"),
        ("cache", need.cache, here.cache, "point SDCONV_HOME to a folder on another disk"),
    ):
        if needed > disk.free:
            line = (
                f"{disk.folder}: {gigabytes(needed)} of disk are needed and {gigabytes(disk.free)} "
                f"are free: free {gigabytes(needed - disk.free)} there, or {other}"
            )
            yield name, line


def gigabytes(count: float) -> str:
    """Bytes as a user reads them: ``3.44 GB``, ``61 MB``."""
    return f"{count / 1e9:.2f} GB" if count >= 0.995e9 else f"{math.ceil(count / 1e6)} MB"
