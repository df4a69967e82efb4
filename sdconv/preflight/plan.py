"""Predict every step from checkpoint to judged artifacts, from headers alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from converter.adapters.adapter import Adapter
from converter.adapters.cost import merge_cost
from converter.components import available, complete
from converter.errors import InputError
from converter.export import as_requested, requested_adapters
from converter.families.controlnet import is_controlnet, kind_of
from converter.folders import cache_folder
from converter.forecast import ComponentForecast, forecast, known_content
from converter.inspection import Inspection, inspect_model
from converter.interface_profile import InterfaceProfile
from converter.modules import require_torch
from converter.profiles import DIFFUSERS, get_profile
from converter.source import Source, check_source
from sdconv.adapter_summary import fit_line
from sdconv.preflight.request import Here, Plan, PlanRequest, Step, need_of
from sdconv.preflight.steps import Prepared, compile_request
from sdconv.preflight.verdict import gigabytes, problems
from targets.base import Target, ToolchainError
from targets.machine import Disk, Machine
from targets.registry import get_target
from targets.toolchains import TOOLCHAINS, get_toolchain


def make_plan(request: PlanRequest) -> tuple[Inspection, Plan]:
    """Inspect the files and plan their export and compilation.

    Raises InputError, as `export` and `compile` would, for what cannot work at any price.
    """
    target = get_target(request.target)
    export = request.export
    model = export.files.open()
    found = inspect_model(model)
    profile, why = _profile(request, target, found)
    components = _components(request, found, profile)
    source = check_source(model, found, profile, components, export.clip_skip)
    source = as_requested(source, export, known_content)
    adapters = requested_adapters(source, export, known_content)
    parts = forecast(source, profile, export.output, adapters, link=export.link)
    here = _here(request, parts)
    prepared = Prepared(request, target, profile, source, parts, here.one_disk)
    steps = prepared.steps(request.sizes)
    missing = _missing(request, found)
    notes = list(filter(None, (why, *_notes(prepared, missing, steps))))
    if unready := _unready(target):
        if all(step.reused for step in steps if step.verb == "compile"):
            notes.append(f"nothing can be judged here, the verdict will be incomplete: {unready}")
        else:
            here = replace(here, missing=[*here.missing, unready])
    return found, Plan(
        request=request,
        profile=profile.name,
        steps=steps,
        need=need_of(steps, one_disk=here.one_disk),
        here=here,
        adapters=[_adapter_line(adapter, source) for adapter in adapters],
        problems=list(problems(prepared, here)),
        notes=notes,
        commands=list(_commands(prepared, missing)),
    )


def _profile(
    request: PlanRequest, target: Target, found: Inspection
) -> tuple[InterfaceProfile, str]:
    """The profile asked for, else the one of the target's hosts if they can run this model."""
    wanted = request.profile or target.expected_profile
    if wanted is None:
        return DIFFUSERS, ""
    profile = get_profile(wanted)
    if request.profile is None and found.architecture is not None:
        try:
            profile.check(found.architecture)
        except InputError as e:
            return DIFFUSERS, f"ports of profile {DIFFUSERS.name}: {e}".rpartition(": ")[0]
    return profile, ""


def _components(
    request: PlanRequest, found: Inspection, profile: InterfaceProfile
) -> tuple[str, ...] | None:
    """Those asked for, else of a complete model and its ControlNets those that are there.

    What the profile's consumer has no use for is left out.
    """
    if request.export.components is not None or found.architecture is None:
        return request.export.components
    wanted = complete(found.architecture)
    present = available(found.architecture)
    mine = (c for c in present if kind_of(c) in profile.kinds)
    return tuple(c for c in mine if c in wanted or is_controlnet(c)) or None


def _adapter_line(adapter: Adapter, source: Source) -> str:
    """How a LoRA fits, and what merging it adds to the export."""
    costs = [merge_cost(adapter, name, source.tables[name]) for name in source.components]
    return (
        f"{fit_line(adapter.record())}; merged into {sum(cost.tensors for cost in costs)} tensors, "
        f"which adds {gigabytes(sum(cost.read for cost in costs))} of reading and "
        f"{sum(cost.seconds for cost in costs):.1f} s"
    )


def _missing(request: PlanRequest, found: Inspection) -> Mapping[str, str]:
    """Each part that the export will ask for -> its option."""
    return {} if request.export.components is not None else found.missing


def _unready(target: Target) -> str:
    """What its toolchain lacks on this machine; empty when it is ready."""
    try:
        target.check_ready()
    except ToolchainError as e:
        return str(e)
    return ""


def _here(request: PlanRequest, parts: Sequence[ComponentForecast]) -> Here:
    missing = []
    if any(part.tracing is not None for part in parts):
        try:
            require_torch("tracing a new architecture")
        except InputError as e:
            missing.append(str(e))
    disks = Disk.of(request.output.absolute()), Disk.of(cache_folder())
    return Here(Machine.here(), *disks, missing)


def _notes(prepared: Prepared, missing: Mapping[str, str], steps: Sequence[Step]) -> Iterator[str]:
    try:
        require_torch("judging")
    except InputError as e:
        yield f"{e}; or compile with --no-validate"
    judged = [step for step in steps if step.verb == "judge"]
    if judged and prepared.target.chip is not None:
        yield (
            "what the chip's emulator takes in memory while it judges is not predicted; compile "
            "leaves judging out with --no-validate"
        )
    if _is_calibrated(prepared):
        yield "not in these numbers: drawing calibration data, and the compiler's runs on them"
    if lowered := [step.label.removeprefix("judge ") for step in judged if step.spare]:
        yield (
            "no emulator, or too slow for it in ten minutes each, so judged by their lowered "
            "networks in the compiler's interpreter, which alone is no pass: "
            f"{', '.join(lowered)}"
        )
    for part, option in missing.items():
        yield f"no {part} in the file and none in these numbers: export takes it from {option} FILE"
    if prepared.source.prediction.type == "unknown":
        yield (
            "what the UNet predicts is not in the file: add --prediction epsilon or --prediction "
            "v_prediction to the export (no graph depends on it, drawing does)"
        )


def _is_calibrated(prepared: Prepared) -> bool:
    chosen = prepared.request.precision.values()
    return any(prepared.target.needs_calibration(precision, None) for precision in chosen)


def _commands(prepared: Prepared, missing: Mapping[str, str]) -> Iterator[list[str]]:
    request, target = prepared.request, prepared.target
    for name in TOOLCHAINS:
        toolchain = get_toolchain(name)
        if target.name in toolchain.targets and toolchain.problem() is not None:
            yield ["sdconv", "toolchain", "install", name]
    export = replace(request.export, profile=prepared.profile.name)
    supplied = [word for option in missing.values() for word in (option, "FILE")]
    if not all(part.done for part in prepared.parts) or supplied:
        yield [*export.command(), *supplied]
    compile_ = compile_request(request)
    if _is_calibrated(prepared):
        data = request.output / "calibration"
        sizes = ",".join(map(str, request.sizes))
        yield ["sdconv", "calibrate", str(compile_.bundle), "--sizes", sizes, "-o", str(data)]
        compile_ = replace(compile_, calibration=data)
    yield compile_.command()
