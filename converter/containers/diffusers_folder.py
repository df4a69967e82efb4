"""A diffusers folder: ``model_index.json`` and one folder per part; or the folder of one part.

Format: what `save_pretrained` of diffusers and transformers writes. A part's weights are one file
or shards with an index, in one or more variants (``diffusion_pytorch_model.fp16.safetensors``).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from converter.checkpoint import Checkpoint, TensorInfo
from converter.containers.shards import open_weights
from converter.errors import InputError

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
CONFIG = "config.json"

WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)"
    r"(?:\.(?P<file_variant>\w+))?\.(?P<end>safetensors|bin)"
    r"(?P<index>\.index(?:\.(?P<index_variant>\w+))?\.json)?"
)
"""A part's weights, or their index, which names the variant after ``index``."""

FULL = "full precision"


def open_folder(folder: Path, variant: str | None) -> Checkpoint:
    """Open a diffusers folder: names are ``unet/conv_in.weight``, or bare in a part's folder.

    Without `variant` the full precision is taken, or what there is instead of it. Raises
    InputError when there are no weights, or nowhere in the variant asked for.
    """
    parts = {part: folder / part for part in PARTS if (folder / part).is_dir()}
    found = {part: there for part, path in parts.items() if (there := _weights(path))}
    if not found:
        return _open_part(folder, variant, _weights(folder))
    if variant is not None and not any(variant in there for there in found.values()):
        raise InputError(_no_variant(folder, variant, found.values()))
    tensors: dict[str, TensorInfo] = {}
    words = []
    for part, there in found.items():
        opened = _open_part(parts[part], variant if variant in there else None, there)
        tensors |= {f"{part}/{name}": info for name, info in opened.tensors.items()}
        words.append(f"{part}: {opened.container}")
    files = {part: parts[part] / CONFIG for part in found}
    files["scheduler"] = folder / "scheduler" / "scheduler_config.json"
    configs = {part: file for part, file in files.items() if file.is_file()}
    container = f"diffusers folder ({'; '.join(words)})"
    return Checkpoint(folder, tensors, container=container, configs=configs)


def _open_part(folder: Path, variant: str | None, found: Mapping[str, str]) -> Checkpoint:
    if not found:
        raise InputError(
            f"{folder}: a folder without weights: a diffusers folder was expected (unet/, vae/, "
            "text_encoder/ below it), or one part's (diffusion_pytorch_model.safetensors in it)"
        )
    if variant is not None and variant not in found:
        raise InputError(_no_variant(folder, variant, [found]))
    chosen = choose_variant(found, variant)
    opened = open_weights(folder / found[chosen])
    words = opened.container if chosen == FULL else f"{opened.container}, variant {chosen}"
    return Checkpoint(folder, opened.tensors, container=words)


def _weights(folder: Path) -> dict[str, str]:
    return variants(path.name for path in folder.iterdir())


def variants(names: Iterable[str]) -> dict[str, str]:
    """Variant -> file name of its weights or their index, of the names in a part's folder.

    Safetensors go before pickles, an index before a single file.
    """
    found: dict[str, tuple[bool, bool, str]] = {}
    for name in sorted(names):
        match = WEIGHTS.fullmatch(name)
        if match is not None:
            variant = match["file_variant"] or match["index_variant"] or FULL
            rank = (match["end"] == "safetensors", match["index"] is not None, name)
            found[variant] = max(rank, found.get(variant, rank))
    return {variant: name for variant, (_, _, name) in found.items()}


def choose_variant(found: Mapping[str, str], variant: str | None) -> str:
    """The variant asked for where it is there, else full precision, else what there is."""
    if variant is not None and variant in found:
        return variant
    return FULL if FULL in found else next(iter(found))


def _no_variant(folder: Path, variant: str, found: Iterable[Mapping[str, str]]) -> str:
    there = sorted({name for variants in found for name in variants} - {FULL})
    listed = f"it has {', '.join(there)}" if there else "it has none"
    return (
        f"{folder}: no weights of variant {variant!r}: {listed}: leave --variant out, or name the "
        "weight file itself"
    )
