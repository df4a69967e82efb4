"""What an order will need on this machine, all targets together: plans as `inspect --plan` has."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.inspection import Inspection
from converter.sizes import Size
from sdconv.page.order import EXPORT, Order
from sdconv.page.requests import Locate, Requests, requests_of
from sdconv.preflight.plan import make_plan
from sdconv.preflight.request import Need, Plan, PlanRequest, Step, need_of
from targets.registry import TARGETS, get_target

ONCE = ("start", "trace", "export")
"""Steps that one export makes for all targets."""

ANY_SIZE = Size(512, 512)

DONE_AS = {"judge": "validate"}
"""What a step calls itself while it runs, where a plan calls it otherwise."""


@dataclass(frozen=True)
class PlannedStep:
    """A step as it will report itself: its target (empty for the export), stage, seconds."""

    target: str
    stage: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Forecast:
    """The plans of an order, one a target, and the export's share of them once.

    `profile` is the one asked for, else one that the model and the hosts of a target fit.
    """

    profile: str
    plans: Sequence[Plan]
    steps: Sequence[tuple[str, Step]]

    @property
    def need(self) -> Need:
        """What all of it needs at once and leaves behind."""
        one_disk = self.plans[0].here.one_disk
        return need_of([step for _, step in self.steps], one_disk=one_disk)

    @property
    def problems(self) -> list[str]:
        """What stands in the way on this machine as it is now."""
        return list(dict.fromkeys(line for plan in self.plans for line in plan.problems))

    @property
    def notes(self) -> list[str]:
        """What should be known besides."""
        return list(dict.fromkeys(line for plan in self.plans for line in plan.notes))

    @property
    def adapters(self) -> Sequence[str]:
        """How each LoRA fits."""
        return self.plans[0].adapters

    def stages(self) -> list[PlannedStep]:
        """The steps that take time, as they will report themselves."""
        stages = []
        for target, step in self.steps:
            label = replace(step, verb=DONE_AS.get(step.verb, step.verb)).label
            judged = "" if step.verb == "judge" else target
            stages.append(PlannedStep(judged, label, step.cost.seconds))
        return stages


def foresee(order: Order, locate: Locate, folder: Path) -> tuple[Inspection, Forecast]:
    """Plan an order that begins with an export; raises InputError for what cannot work at all.

    Results would go below `folder`, which need not exist.
    """
    requests = requests_of(order, locate, folder)
    assert requests.export is not None, "the second step alone has no checkpoint to look at"
    exporting = order.steps == EXPORT
    plans: list[Plan] = []
    steps: list[tuple[str, Step]] = []
    wanted = _export_plan(order, requests) if exporting else _plans(order, requests, folder)
    for request in wanted:
        # One export serves all targets, so all have its ports.
        profile = plans[0].profile if plans else request.profile
        found, plan = make_plan(replace(request, profile=profile))
        steps += [("", step) for step in plan.steps if step.verb in ONCE and not plans]
        if exporting:
            plan = replace(plan, problems=plan.here.missing, notes=())
        else:
            steps += [(request.target, step) for step in plan.steps if step.verb not in ONCE]
        plans.append(plan)
    return found, Forecast(plans[0].profile, plans, steps)


def _plans(order: Order, requests: Requests, folder: Path) -> Iterator[PlanRequest]:
    """One plan a target; first those whose hosts expect certain ports."""
    assert requests.export is not None
    for compiling in sorted(requests.compiles, key=lambda c: not _expects_ports(c.target)):
        yield PlanRequest(
            export=requests.export,
            target=compiling.target,
            sizes=compiling.sizes,
            output=folder,
            profile=order.profile or None,
            precision=compiling.precision,
            effort=compiling.effort,
        )


def _expects_ports(target: str) -> bool:
    return get_target(target).expected_profile is not None


def _export_plan(order: Order, requests: Requests) -> Iterator[PlanRequest]:
    """The plan of an export, for which any target does, and any size that every model takes."""
    assert requests.export is not None
    target = get_target(next(iter(TARGETS)))
    profile = order.profile or target.expected_profile
    yield PlanRequest(requests.export, target.name, (ANY_SIZE,), profile=profile)
