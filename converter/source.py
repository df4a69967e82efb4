"""What an export reads: a checked model, its family's tables, the components to write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.architecture import Architecture, UNetArchitecture
from converter.clip_skip import with_clip_skip
from converter.components import COMPONENTS, PART_OF, available, complete, part, rules
from converter.embeddings.embedding import Embedding
from converter.errors import InputError
from converter.families.controlnet import as_unet, is_controlnet, kind_of
from converter.families.detect import NOT_EXPORTED, checkpoint_family
from converter.families.prediction import Prediction
from converter.families.registry import FAMILIES
from converter.families.rules import TensorRule
from converter.families.unet import down_residuals
from converter.files import blake3_of
from converter.inspection import Inspection, inspect_model
from converter.interface_profile import InterfaceProfile
from converter.layouts.parts import OPTIONS
from converter.model_files import Model, ModelFiles


@dataclass(frozen=True)
class Source:
    """A checked model: its tensors, architecture, tables, the components to export.

    The tables are of what the checkpoint holds, without `embeddings`; the architecture is of what
    is exported, with them.
    """

    model: Model
    architecture: Architecture
    tables: Mapping[str, list[TensorRule]]
    components: tuple[str, ...]
    prediction: Prediction
    embeddings: Sequence[Embedding] = ()

    @property
    def files(self) -> list[Path]:
        """Every file that these components are read from."""
        tensors = self.model.file.tensors
        names = (rule.source for component in self.components for rule in self.tables[component])
        return self.model.file.with_tensors({name: tensors[name] for name in names}).files

    def contents(self) -> Mapping[Path, str]:
        """Hash every file that these components are read from."""
        return {file: blake3_of(file) for file in self.files}


def open_source(
    files: ModelFiles,
    profile: InterfaceProfile,
    components: tuple[str, ...] | None,
    clip_skip: int | None = None,
) -> Source:
    """Open a model and choose what to export (None: everything that it must hold).

    `clip_skip` is that of `converter.clip_skip`.

    Raises InputError, naming what to do, for a file of another kind or family, for a part that is
    missing, and for tensors that do not fit.
    """
    model = files.open()
    return check_source(model, inspect_model(model), profile, components, clip_skip)


def check_source(
    model: Model,
    found: Inspection,
    profile: InterfaceProfile,
    components: tuple[str, ...] | None,
    clip_skip: int | None = None,
) -> Source:
    """Do what `open_source` does with a model that was opened and inspected."""
    path, tensors = model.file.path, model.file.tensors
    if found.family in NOT_EXPORTED:
        raise InputError(
            f"{path}: a {found.family} checkpoint, which is not exported: "
            f"{NOT_EXPORTED[found.family]}: exported are {', '.join(FAMILIES)}"
        )
    if found.kind not in ("checkpoint", *OPTIONS):
        raise InputError(
            f"{path}: a {found.kind} file, and -u wants a checkpoint (a file with "
            f"model.diffusion_model.* tensors, or a diffusers folder): {_advice(found.kind)}"
        )
    architecture = found.architecture
    if architecture is None:
        raise InputError(
            f"{path}: a checkpoint of no family that is known here ({', '.join(FAMILIES)}): "
            "use a Stable Diffusion checkpoint in its original single-file layout"
        )
    _check_controlnets(model, architecture)
    profile.check(architecture)
    chosen = _choose_components(path, architecture, components, profile)
    problems = [
        p
        for p in found.problems
        if not p.startswith(tuple(f"{c}:" for c in available(architecture) if c not in chosen))
    ]
    if problems:
        raise InputError(
            f"{path}: {len(problems)} tensors do not fit the {found.family} layout: "
            f"{'; '.join(problems[:5])}{'; ...' if len(problems) > 5 else ''}: "
            "see them all with 'sdconv inspect'; download the file again, or use another one"
        )
    architecture = with_clip_skip(profile.presented(architecture), chosen, clip_skip)
    tables = {c: rules(c, architecture, tensors) for c in available(architecture)}
    lacking = [r.source for c in chosen for r in tables[c] if r.needed and r.source not in tensors]
    if lacking:  # what only this profile's outputs need
        raise InputError(
            f"{path}: no {lacking[0]}, which profile {profile.name} needs: use a complete "
            "checkpoint, or another --profile"
        )
    return Source(model, architecture, tables, chosen, found.prediction)


def _check_controlnets(model: Model, architecture: Architecture) -> None:
    """Raise InputError for a ControlNet of another family, or for another UNet than the model's."""
    unet, tensors = architecture.unet, model.file.tensors
    for component in (c for c in available(architecture) if is_controlnet(c)):
        net = part(architecture, component)
        mine = as_unet(tensors, component)
        assert isinstance(net, UNetArchitecture) and mine
        file, family = next(iter(mine.values())).file, checkpoint_family(mine)
        if family != architecture.family:
            raise InputError(
                f"{file}: a ControlNet for {family}, and the checkpoint is {architecture.family}: "
                f"use one trained for {architecture.family}"
            )
        if unet is not None and down_residuals(net) != down_residuals(unet):
            raise InputError(
                f"{file}: a ControlNet with {len(down_residuals(net))} residuals of up to "
                f"{max(net.block_channels)} channels, where this UNet takes "
                f"{len(down_residuals(unet))} of up to {max(unet.block_channels)}: use one trained "
                "for this variant of the family"
            )


def _advice(kind: str) -> str:
    if kind == "lora":
        return "pass a LoRA with -l, beside a checkpoint"
    if kind == "textual_inversion":
        return "pass it with --embedding, beside a checkpoint"
    return "give a full checkpoint"


def _choose_components(
    path: Path,
    architecture: Architecture,
    wanted: tuple[str, ...] | None,
    profile: InterfaceProfile,
) -> tuple[str, ...]:
    present = available(architecture)
    for name in wanted or ():
        if kind_of(name) not in COMPONENTS:
            raise InputError(f"unknown component {name!r}: choose from {', '.join(COMPONENTS)}")
        if kind_of(name) not in profile.kinds:
            raise InputError(
                f"profile {profile.name} takes {', '.join(profile.kinds)} and no {name} "
                f"({profile.consumer}): leave it out of --components, or add --profile diffusers"
            )
    given = tuple(name for name in present if is_controlnet(name))
    whole = (*given, *complete(architecture))
    needed = wanted or tuple(name for name in whole if kind_of(name) in profile.kinds)
    missing = [name for name in needed if name not in present]
    if missing:
        options = dict.fromkeys(f"{OPTIONS[PART_OF[kind_of(name)]]} FILE" for name in missing)
        raise InputError(
            f"{path}: no {' and no '.join(missing)} in this file; it holds {', '.join(present)}: "
            f"supply what is missing with {' '.join(options)}, or export those alone with "
            f"--components {','.join(present)}"
        )
    return tuple(name for name in present if name in needed)
