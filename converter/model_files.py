"""The files of a model, in any container and spelling, as one checkpoint in the original layout.

Everything downstream (families, adapters, the weight stream) knows one layout, the original
single-file one; nothing is copied to get there, only the table of names is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from converter.architecture import CONTROLNET
from converter.checkpoint import Checkpoint, TensorInfo
from converter.containers.diffusers_folder import CONFIG
from converter.containers.opening import open_checkpoint
from converter.errors import InputError
from converter.families.controlnet import is_controlnet, kind_of
from converter.families.detect import checkpoint_family
from converter.families.unet import UNET_PREFIX
from converter.families.vae import VAE_PREFIX
from converter.layouts.ema import EMA, choose_ema, ema_copies
from converter.layouts.parts import OPTIONS, Part, find_part, homes, require_part
from converter.transfer import transfer_controlnets

SINGLE_FILE = (
    UNET_PREFIX,
    VAE_PREFIX,
    "cond_stage_model.",
    "conditioner.embedders.",
)
"""Prefixes of the original single-file layout: a file that has one is taken as it is."""


@dataclass(frozen=True)
class Model:
    """A model's tensors under the original single-file names, and what was found on the way.

    `spellings` maps the parts to the names that their files use, `has_ema` tells whether there
    are EMA copies, `roles` maps each file to what it was given as, `layouts` the homes of the
    parts that were found in another layout to how they are there.
    """

    file: Checkpoint
    spellings: Mapping[str, str]
    has_ema: bool
    roles: Mapping[Path, str]
    layouts: Mapping[str, Part] = field(default_factory=dict)

    def called(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What the files themselves call tensors; `wanted` maps names here to the modules'.

        Those that the files call as they are called here are left out.
        """
        found: dict[str, str] = {}
        for home, part in self.layouts.items():
            mine = {n.removeprefix(home): name for n, name in wanted.items() if n.startswith(home)}
            found |= {home + original: own for original, own in part.called(mine).items()}
        return {name: own for name, own in found.items() if name != own}


@dataclass(frozen=True)
class ModelFiles:
    """What a user gives: a checkpoint of any container, parts that replace its own, or both.

    `parts` maps ``unet``, ``vae``, ... and ``controlnet``, ``controlnet_2``, ... to their files.
    `variant` chooses among the precisions of diffusers folders, `ema` the EMA copies. With
    `controlnet_base`, the model that the ControlNets were trained beside, they are carried over to
    this one (`converter.transfer`).
    """

    checkpoint: Path | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    variant: str | None = None
    ema: bool = False
    controlnet_base: Path | None = None

    def words(self) -> list[str]:
        """The options of `sdconv export` that give the same files."""
        words = [] if self.checkpoint is None else ["-u", str(self.checkpoint)]
        for part, path in self.parts.items():
            words += [OPTIONS[kind_of(part)], str(path)]
        if self.variant is not None:
            words += ["--variant", self.variant]
        if self.controlnet_base is not None:
            words += ["--controlnet-merge", str(self.controlnet_base)]
        return [*words, "--ema"] if self.ema else words

    def open(self) -> Model:
        """Read the headers of all files; raises InputError for what cannot be read or found."""
        given = {part: open_checkpoint(path, self.variant) for part, path in self.parts.items()}
        if self.checkpoint is not None:
            base = open_checkpoint(self.checkpoint, self.variant)
        elif given:
            base = Checkpoint(next(iter(self.parts.values())), {}, container="separate parts")
        else:
            raise InputError("no checkpoint is given: name one with -u, or parts with --unet FILE")
        if self.variant is not None and not any(f.path.is_dir() for f in (base, *given.values())):
            raise InputError(
                f"--variant {self.variant}: it chooses among the files of a diffusers folder, and "
                "none is given: leave it out"
            )
        model = assemble(base, given, ema=self.ema)
        if self.controlnet_base is None:
            return replace(model, file=transfer_controlnets(model.file, None))
        other = assemble(open_checkpoint(self.controlnet_base, self.variant))
        roles = {**dict.fromkeys(other.roles, "controlnet base"), **model.roles}
        return replace(model, file=transfer_controlnets(model.file, other.file), roles=roles)


def assemble(
    base: Checkpoint, given: Mapping[str, Checkpoint] | None = None, *, ema: bool = False
) -> Model:
    """Bring a checkpoint, and the parts `given` in place of its own, to the original layout.

    Raises InputError for a file that does not hold the part it was given for.
    """
    given = given or {}
    found = {part: require_part(opened, part) for part, opened in given.items()}
    parts = {**_parts(base), **found}
    whole = _single_file(base, parts)
    has_ema = bool(ema_copies(whole.tensors))
    whole = replace(choose_ema(whole) if ema else whole, configs=_configs(base, given))
    spellings = {part: part_found.spelling.words for part, part_found in parts.items()}
    places = homes(_family(base.tensors, parts), filter(is_controlnet, parts))
    layouts = {home: parts[part] for part, home in places.items() if part in parts}
    return Model(whole, spellings, has_ema, _roles(base, given), layouts)


def _configs(base: Checkpoint, given: Mapping[str, Checkpoint]) -> dict[str, Path]:
    """The `config.json` of each part that a diffusers folder supplies."""
    beside = {part: opened.path / CONFIG for part, opened in given.items()}
    configs = {part: path for part, path in base.configs.items() if part not in given}
    return configs | {part: path for part, path in beside.items() if path.is_file()}


def _roles(base: Checkpoint, given: Mapping[str, Checkpoint]) -> dict[Path, str]:
    roles = {
        info.file: name.partition("/")[0] if "/" in name else "checkpoint"
        for name, info in base.tensors.items()
    }
    return roles | {file: part for part, opened in given.items() for file in opened.files}


def _parts(base: Checkpoint) -> dict[str, Part]:
    """The parts of a checkpoint that is not in the original layout as a whole."""
    if any(name.startswith(SINGLE_FILE) for name in base.tensors):
        return {}
    if any("/" in name for name in base.tensors):
        return {part: _of_folder(base, part) for part in _folders(base)}
    bare = ("unet", "vae", "text_encoder", CONTROLNET)
    return {part: found for part in bare if (found := find_part(base.tensors, part)) is not None}


def _folders(base: Checkpoint) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in base.tensors))


def _of_folder(base: Checkpoint, part: str) -> Part:
    prefix = f"{part}/"
    tensors = base.tensors.items()
    below = {n.removeprefix(prefix): info for n, info in tensors if n.startswith(prefix)}
    return require_part(Checkpoint(base.path / part, below), part)


def _single_file(base: Checkpoint, parts: Mapping[str, Part]) -> Checkpoint:
    """Put `parts` at their homes, in the place of what `base` has there."""
    if not parts:
        return base
    whole_file = any(name.startswith(SINGLE_FILE) for name in base.tensors)
    table: dict[str, TensorInfo] = dict(base.tensors) if whole_file else {}
    family = _family(table, parts)
    for part, home in homes(family, filter(is_controlnet, parts)).items():
        if part in parts:
            replaced = (home, EMA) if part == "unet" else (home,)
            table = {n: info for n, info in table.items() if not n.startswith(replaced)}
            table |= {home + name: info for name, info in parts[part].tensors.items()}
    return base.with_tensors(table)


def _family(table: Mapping[str, TensorInfo], parts: Mapping[str, Part]) -> str:
    """The family decides where the text encoders live; the UNet decides the family."""
    home = homes("unknown")["unet"]
    unet = (
        {home + name: info for name, info in parts["unet"].tensors.items()}
        if ("unet" in parts)
        else table
    )
    family = checkpoint_family(unet)
    return "sdxl" if family == "unknown" and "text_encoder_2" in parts else family
