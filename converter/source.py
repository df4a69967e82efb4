"""What an export reads: a checked model, its family's tables, the components to write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.architecture import Architecture
from converter.clip_skip import with_clip_skip
from converter.components import COMPONENTS, PART_OF, available, complete, rules
from converter.embeddings.embedding import Embedding
from converter.errors import InputError
from converter.families.detect import NOT_EXPORTED
from converter.families.prediction import Prediction
from converter.families.registry import FAMILIES
from converter.families.rules import TensorRule
from converter.files import blake3_of
from converter.inspection import inspect_model
from converter.layouts.parts import OPTIONS
from converter.model_files import Model, ModelFiles
from converter.profiles import InterfaceProfile


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

    def contents(self) -> Mapping[Path, str]:
        """Hash every file that these components are read from."""
        tensors = self.model.file.tensors
        names = (rule.source for component in self.components for rule in self.tables[component])
        used = self.model.file.with_tensors({name: tensors[name] for name in names})
        return {file: blake3_of(file) for file in used.files}


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
    path, tensors = model.file.path, model.file.tensors
    found = inspect_model(model)
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
    profile.check(architecture)
    chosen = _choose_components(path, architecture, components)
    problems = [
        p
        for p in found.problems
        if not p.startswith(tuple(f"{c}:" for c in COMPONENTS if c not in chosen))
    ]
    if problems:
        raise InputError(
            f"{path}: {len(problems)} tensors do not fit the {found.family} layout: "
            f"{'; '.join(problems[:5])}{'; ...' if len(problems) > 5 else ''}: "
            "see them all with 'sdconv inspect'; download the file again, or use another one"
        )
    architecture = with_clip_skip(architecture, chosen, clip_skip)
    tables = {c: rules(c, architecture, tensors) for c in available(architecture)}
    return Source(model, architecture, tables, chosen, found.prediction)


def _advice(kind: str) -> str:
    if kind == "lora":
        return "pass a LoRA with -l, beside a checkpoint"
    if kind == "textual_inversion":
        return "pass it with --embedding, beside a checkpoint"
    return "give a full checkpoint"


def _choose_components(
    path: Path, architecture: Architecture, wanted: tuple[str, ...] | None
) -> tuple[str, ...]:
    present = available(architecture)
    for name in wanted or ():
        if name not in COMPONENTS:
            raise InputError(f"unknown component {name!r}: choose from {', '.join(COMPONENTS)}")
    needed = wanted or complete(architecture)
    missing = [name for name in needed if name not in present]
    if missing:
        options = dict.fromkeys(f"{OPTIONS[PART_OF[name]]} FILE" for name in missing)
        raise InputError(
            f"{path}: no {' and no '.join(missing)} in this file; it holds {', '.join(present)}: "
            f"supply what is missing with {' '.join(options)}, or export those alone with "
            f"--components {','.join(present)}"
        )
    return tuple(c for c in COMPONENTS if c in needed)
