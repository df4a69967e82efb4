"""The steps from checkpoint to judged artifacts, each as its own part of the tool predicts it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from converter.bundle import Bundle
from converter.cost import Cost
from converter.forecast import ComponentForecast
from converter.interface_profile import InterfaceProfile
from converter.operations import activations, operations
from converter.sizes import Size
from converter.source import Source
from sdconv.preflight.request import PlanRequest, Step
from targets.base import Target, Workload
from targets.compile import CompileRequest, jobs_of
from targets.one_file import is_in_one_file
from validate.cost import judge_cost
from validate.scenes import scenes

START_SECONDS = 1.2
"""Python, its packages and the bundle's records, once a command (measured: 1.1 to 1.4 s)."""


@dataclass(frozen=True)
class Prepared:
    """A request whose files were looked at: everything that the steps follow from.

    `linked`: artifacts can be hard links into the cache, and take no room if the target's are.
    """

    request: PlanRequest
    target: Target
    profile: InterfaceProfile
    source: Source
    parts: tuple[ComponentForecast, ...]
    linked: bool

    def steps(self, sizes: Sequence[Size]) -> list[Step]:
        """Every step for these sizes."""
        commands = 1 if all(part.done for part in self.parts) else 2
        works = _works(self, tuple(sizes))
        return [
            Step("start", "", None, "", Cost(seconds=commands * START_SECONDS)),
            *_export_steps(self.parts),
            *_gather_steps(self),
            *_compile_steps(self, works),
            *_judge_steps(self, works),
        ]


def _export_steps(parts: Sequence[ComponentForecast]) -> Iterator[Step]:
    for part in parts:
        if part.tracing is not None:
            yield Step("trace", part.record.name, None, "", part.tracing)
    for part in parts:
        yield Step("export", part.record.name, None, "", part.cost, part.done)


def _gather_steps(prepared: Prepared) -> Iterator[Step]:
    """Linked weights are written out once, for whoever reads offsets of one file."""
    bundle = prepared.request.export.output
    for part in prepared.parts if prepared.target.needs_weights_file else ():
        if part.gathering is not None:
            record = part.record
            reused = part.done and is_in_one_file(record.weights_key, bundle / record.graph)
            cost = Cost() if reused else part.gathering
            yield Step("gather", record.name, None, "", cost, reused)


def _works(prepared: Prepared, sizes: tuple[Size, ...]) -> dict[str, list[Workload]]:
    """Every job of the compilation by component, as far as the header tells."""
    request, architecture = prepared.request, prepared.source.architecture
    parts = {part.record.name: part for part in prepared.parts}
    bundle = Bundle(
        folder=request.export.output,
        family=architecture.family,
        architecture=architecture.to_json(),
        profile=prepared.profile.name,
        batch=replace(request.export, profile=prepared.profile.name).unet_batch,
        prediction_type=prepared.source.prediction.type,
        components={name: part.record for name, part in parts.items()},
    )
    wanted = replace(compile_request(request), sizes=sizes)
    return {
        component: [
            Workload(
                job=job,
                weights_key=parts[component].record.weights_key,
                parameters=parts[component].record.parameters,
                weights_bytes=parts[component].record.weights_bytes,
                tensors=parts[component].tensors,
                largest=parts[component].largest,
                operations=operations(component, architecture, job.batch, job.size),
                matrices=parts[component].matrices,
            )
            for job in jobs
        ]
        for component, jobs in jobs_of(wanted, bundle, prepared.target).items()
    }


def _compile_steps(prepared: Prepared, works: Mapping[str, list[Workload]]) -> Iterator[Step]:
    target = prepared.target
    for component, mine in works.items():
        for nth, work in enumerate(mine):
            job = work.job
            key = work.weights_key
            reused = nth > 0 and not job.static  # one file serves all sizes
            if job.graph_sha256:
                reused |= target.find_skeleton(job, key) is not None
            cost = Cost() if reused else target.predict(work)
            yield Step("compile", component, job.size, job.precision, cost, reused)
        bind = target.predict_bind(mine)
        bind = replace(bind, written=0) if prepared.linked and target.links else bind
        if bind != Cost(memory=bind.memory):
            yield Step("bind", component, None, "", bind)


def _judge_steps(prepared: Prepared, works: Mapping[str, list[Workload]]) -> Iterator[Step]:
    """What can be judged in the time that an emulator is given."""
    interfaces = {part.record.name: part.record.interface for part in prepared.parts}
    architecture = prepared.source.architecture
    for component, mine in works.items():
        cases = len(scenes(component, interfaces[component]))
        for work in mine:
            job = work.job
            largest = activations(component, architecture, job.batch, job.size)
            cost = judge_cost(work, cases, prepared.target, largest)
            if cost is not None:
                yield Step("judge", component, job.size, job.precision, cost)


def compile_request(request: PlanRequest) -> CompileRequest:
    """The compilation that the plan is for."""
    return CompileRequest(
        bundle=request.export.output,
        target=request.target,
        sizes=request.sizes,
        output=request.artifacts,
        precision=request.precision,
        components=request.export.components,
        effort=request.effort,
    )
