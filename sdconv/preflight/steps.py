"""The steps from checkpoint to artifacts, each with what its own part of the tool predicts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from converter.bundle import Bundle
from converter.cost import Cost
from converter.forecast import ComponentForecast
from converter.operations import operations
from converter.profiles import InterfaceProfile
from converter.sizes import Size
from converter.source import Source
from sdconv.preflight.request import PlanRequest, Step
from targets.base import Target, Workload
from targets.compile import CompileRequest, jobs_of

START_SECONDS = 1.2
"""Python, its packages and the bundle's records, once a command (measured: 1.1 to 1.4 s)."""


@dataclass(frozen=True)
class Prepared:
    """A request whose files were looked at: everything that the steps follow from.

    `linked`: artifacts can be hard links into the cache, so they take no room of their own.
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
        return [
            Step("start", "", None, "", Cost(seconds=commands * START_SECONDS)),
            *_export_steps(self.parts),
            *_compile_steps(self, tuple(sizes)),
        ]


def _export_steps(parts: Sequence[ComponentForecast]) -> Iterator[Step]:
    for part in parts:
        if part.tracing is not None:
            yield Step("trace", part.record.name, None, "", part.tracing)
    for part in parts:
        yield Step("export", part.record.name, None, "", part.cost, part.done)


def _compile_steps(prepared: Prepared, sizes: tuple[Size, ...]) -> Iterator[Step]:
    request, target = prepared.request, prepared.target
    records = {part.record.name: part.record for part in prepared.parts}
    tensors = {part.record.name: part.tensors for part in prepared.parts}
    architecture = prepared.source.architecture
    bundle = Bundle(
        folder=request.bundle,
        family=architecture.family,
        architecture=architecture.to_json(),
        profile=prepared.profile.name,
        batch=1,
        prediction_type=prepared.source.prediction.type,
        components=records,
    )
    wanted = replace(compile_request(request), sizes=sizes)
    for component, jobs in jobs_of(wanted, bundle, target).items():
        record = records[component]
        works = [
            Workload(
                job=job,
                weights_key=record.weights_key,
                parameters=record.parameters,
                weights_bytes=record.weights_bytes,
                tensors=tensors[component],
                operations=operations(component, architecture, job.batch, job.size),
            )
            for job in jobs
        ]
        for work in works:
            job = work.job
            reused = job.graph_sha256 != "" and target.is_compiled(job, work.weights_key)
            cost = Cost() if reused else target.predict(work)
            yield Step("compile", component, job.size, job.precision, cost, reused)
        bind = target.predict_bind(works)
        bind = replace(bind, written=0) if prepared.linked else bind
        if bind != Cost(memory=bind.memory):
            yield Step("bind", component, None, "", bind)


def compile_request(request: PlanRequest) -> CompileRequest:
    """The compilation that the plan is for."""
    return CompileRequest(
        bundle=request.bundle,
        target=request.target,
        sizes=request.sizes,
        output=request.artifacts,
        precision=request.precision,
        components=request.components,
        effort=request.effort,
    )
