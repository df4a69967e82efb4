"""A plan on the terminal and as JSON."""

import shlex
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from converter.cost import Cost
from sdconv.preflight.request import Plan
from sdconv.preflight.verdict import gigabytes

ACCURACY = (
    "predicted from the header: memory and disk within 25 %, time within a factor of two on a "
    "machine like the one measured (2 cores, otherwise idle)"
)


def print_plan(plan: Plan, out: Console) -> None:
    """Print the steps, their sum, the machine, the verdict and the next commands."""
    table = Table(Column("step", no_wrap=True), "memory", "disk", "temporary", "time")
    for step in plan.steps:
        cost = step.cost
        if step.reused:
            table.add_row(step.label, *_cells(cost)[:1], "there already", "", _duration(cost))
        else:
            table.add_row(step.label, *_cells(cost), _duration(cost))
    need = plan.need
    table.add_section()
    table.add_row(
        "all of it",
        gigabytes(need.memory),
        gigabytes(need.kept),
        gigabytes(need.temporary),
        _time(need.seconds),
    )
    out.print(table)
    lines = [
        *plan.adapters,
        ACCURACY,
        _machine(plan),
        _in_place(plan),
        *(f"note: {note}" for note in plan.notes),
    ]
    lines += [f"cannot do it here: {problem}" for problem in plan.problems]
    if plan.possible:
        lines.append("this machine can do it" + _margin(plan))
    lines += [("next: " if i == 0 else "then: ") + shlex.join(words)
              for i, words in enumerate(plan.commands)]  # fmt: skip
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The same as plain JSON values: bytes and seconds."""
    here = plan.here
    return {
        "target": plan.request.target,
        "profile": plan.profile,
        "steps": [
            {
                "step": step.verb,
                "component": step.component or None,
                "size": None if step.size is None else str(step.size),
                "precision": step.precision or None,
                "reused": step.reused,
                **step.cost.__dict__,
            }
            for step in plan.steps
        ],
        "total": plan.need.__dict__,
        "machine": {
            "memory": here.machine.memory,
            "cores": here.machine.cores,
            "output": {"folder": str(here.output.folder), "free": here.output.free},
            "cache": {"folder": str(here.cache.folder), "free": here.cache.free},
            "one_disk": here.one_disk,
            "missing": list(here.missing),
        },
        "possible": plan.possible,
        "adapters": list(plan.adapters),
        "problems": list(plan.problems),
        "notes": list(plan.notes),
        "commands": [list(words) for words in plan.commands],
        "accuracy": ACCURACY,
    }


def _cells(cost: Cost) -> list[str]:
    disk = cost.written + cost.cached
    return [
        gigabytes(cost.memory) if cost.memory else "",
        gigabytes(disk) if disk else "",
        gigabytes(cost.temporary) if cost.temporary else "",
    ]


def _duration(cost: Cost) -> str:
    return _time(cost.seconds) if cost.seconds else ""


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 99.5 else f"{seconds / 60:.1f} min"


def _machine(plan: Plan) -> str:
    here = plan.here
    disks = f"{gigabytes(here.output.free)} of disk free at {here.output.folder}"
    if not here.one_disk:
        disks += f" and {gigabytes(here.cache.free)} at {here.cache.folder}"
    return (
        f"this machine: {gigabytes(here.machine.memory)} of memory available, "
        f"{here.machine.cores} cores, {disks}"
    )


def _in_place(plan: Plan) -> str:
    """What is there and costs nothing any more."""
    installed = "not everything" if plan.here.missing else "everything"
    exports = [step for step in plan.steps if step.verb == "export"]
    traced = [step for step in plan.steps if step.verb == "trace"]
    compiled = [step for step in plan.steps if step.verb == "compile"]
    return (
        f"in place: {installed} that must be installed, {len(exports) - len(traced)} of "
        f"{len(exports)} templates, {sum(step.reused for step in exports)} of {len(exports)} "
        f"exports, {sum(step.reused for step in compiled)} of {len(compiled)} skeletons"
    )


def _margin(plan: Plan) -> str:
    """A warning where the prediction's own error decides."""
    here, need = plan.here, plan.need
    tight = [
        what
        for what, needed, room in (
            ("memory", need.memory, here.machine.memory),
            ("disk", need.output, here.output.free),
            ("the cache's disk", need.cache, here.cache.free),
        )
        if needed > 0.8 * room
    ]
    return f", but tightly: {' and '.join(tight)} within 25 % of the limit" if tight else ""
