"""Recipe -> the requests of its steps, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest
from converter.export_record import export_record, export_request
from runtime.advice import sampling_options
from runtime.hints import HintFile
from runtime.sampling import PictureRequest
from sdconv.recipe.recipe import Compilation, Export, Recipe, Validation, given
from targets.adding import as_before
from targets.compile import CompileRequest
from targets.manifest import Manifest
from targets.registry import get_target
from validate.validate import ValidateRequest


def to_export(recipe: Recipe, folder: Path, local: Callable[[str], Path]) -> ExportRequest:
    """The export, into `folder`; `local` finds files. Raises InputError for what cannot be."""
    if recipe.export.checkpoint is None and not set(given(recipe.export)) & set(PARTS):
        raise InputError("the recipe's export has no checkpoint: write 'checkpoint: FILE'")
    return export_request(given(recipe.export), folder, local)


PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "controlnets")


def to_compile(
    one: Compilation, bundle: Path, output: Path, local: Callable[[str], Path]
) -> CompileRequest:
    """One compilation. Raises InputError for an unknown target, and files that are not there."""
    target = get_target(one.target)
    tables = {component: local(table) for component, table in one.quantize_tables.items()}
    missing = [str(table) for table in tables.values() if not table.is_file()]
    if missing:
        raise InputError(f"quantize_tables: there is no file {missing[0]}: check the path")
    return CompileRequest(
        bundle=bundle,
        target=target.name,
        sizes=one.sizes,
        output=output,
        precision=one.precision,
        batch=one.batch,
        components=one.components or None,
        effort=one.effort,
        calibration=None if one.calibration is None else local(one.calibration),
        quantize_tables=tables,
        static=one.static,
    )


def to_validate(
    one: Validation, bundle: Bundle, artifacts: Path, local: Callable[[str], Path]
) -> ValidateRequest:
    """The validation of what was compiled from a bundle, which says how it wants to be sampled."""
    picture = None
    if one.prompts:
        options, _ = sampling_options(bundle.sampling, one.scheduler, one.steps, one.guidance)
        hints = tuple(HintFile.parse(hint) for hint in one.hints)
        first = PictureRequest(
            one.prompts[0],
            one.negative,
            seed=one.seed,
            hints=hints,
            noise=one.noise or "",
            early=one.early,
        )
        picture = replace(first, **options)
    return ValidateRequest(
        artifacts=artifacts,
        emulator_budget=one.emulator_budget * 60,
        picture=picture,
        prompts=one.prompts[1:],
        levels=one.levels or None,
        recogniser=None if one.recogniser is None else local(one.recogniser),
        attribute=one.attribute,
        overrides=one.thresholds,
    )


def of_export(request: ExportRequest) -> Recipe:
    """The recipe of an export alone; what was fetched is named by its address."""
    return Recipe(_export(export_record(request)))


def of_compile(requests: Sequence[CompileRequest], bundle: Bundle) -> Recipe:
    """The recipe of a bundle and what is compiled from it."""
    return Recipe(_export(bundle.recipe), compile=tuple(map(_compilation, requests)))


def of_validate(request: ValidateRequest) -> Recipe:
    """The recipe of a folder of artifacts and how it is judged."""
    manifest = Manifest.load(request.artifacts)
    bundle = manifest.load_bundle(request.bundle)
    compiled = [
        as_before(words, bundle.folder, manifest.folder) for words in manifest.commands.values()
    ]
    return replace(of_compile(compiled, bundle), validate=_validation(request))


def _export(record: Mapping[str, Any]) -> Export:
    """Read a bundle's record; raises InputError for one of an earlier version."""
    if not record:
        raise InputError("the bundle does not say what it was made from: export it again")
    values = dict(record)
    addresses = values.pop("addresses", {})

    def named(text: Any) -> Any:
        if isinstance(text, list):
            return tuple(named(one) for one in text)
        for path, where in addresses.items():
            text = text.replace(path, where) if isinstance(text, str) else text
        return text

    return Export(**{name: named(value) for name, value in values.items()})


def _compilation(request: CompileRequest) -> Compilation:
    calibration = request.calibration
    return Compilation(
        target=request.target,
        sizes=request.sizes,
        components=request.components or (),
        precision=dict(request.precision),
        batch=request.batch,
        effort=request.effort,
        calibration=None if calibration is None else str(calibration.absolute()),
        quantize_tables={c: str(p.absolute()) for c, p in request.quantize_tables.items()},
        static=request.static,
    )


def _validation(request: ValidateRequest) -> Validation:
    pictured: dict[str, Any] = {}
    if request.picture is not None:
        mine = {one.name: getattr(request.picture, one.name) for one in fields(request.picture)}
        pictured = {name: mine[name] for name in
                    ("negative", "scheduler", "steps", "guidance", "seed", "early")}  # fmt: skip
        pictured["prompts"] = (request.picture.prompt, *request.prompts)
        pictured["noise"] = request.picture.noise or None
        pictured["hints"] = tuple(str(hint) for hint in request.picture.hints)
    recogniser = request.recogniser
    return Validation(
        **pictured,
        levels=request.levels or (),
        recogniser=None if recogniser is None else str(recogniser.absolute()),
        attribute=request.attribute,
        emulator_budget=request.emulator_budget / 60,
        thresholds=request.overrides,
    )
