"""Open embedding files for a model, and refuse what is none or is for another."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from converter.adapters.family import CONTEXT_FAMILIES
from converter.architecture import CLIP_VOCABULARY, Architecture
from converter.checkpoint import Checkpoint
from converter.containers.opening import open_checkpoint
from converter.embeddings.choice import EmbeddingChoice, checked_name
from converter.embeddings.embedding import Embedding
from converter.embeddings.formats import CLIP_G, CLIP_L, ONLY, find_vectors
from converter.errors import InputError
from converter.families.registry import FAMILIES
from converter.files import blake3_of
from converter.inspection import inspect_model
from converter.layouts.parts import OPTIONS
from converter.model_files import assemble
from converter.weights import Array

KEYS = {"text_encoder": CLIP_L, "text_encoder_2": CLIP_G}
"""Text encoder -> the key of its vectors in a file for SDXL."""

OPTION_OF = {"checkpoint": "-u", "lora": "-l", **OPTIONS}
"""Kind of a file -> the option that takes it."""


def load_embeddings(
    choices: Sequence[EmbeddingChoice],
    architecture: Architecture,
    components: Sequence[str],
    content: Callable[[Path], str] = blake3_of,
) -> list[Embedding]:
    """Open embeddings for a model of which `components` are exported; ids follow the vocabulary.

    `content` tells the hash of a file.

    Raises InputError for a file that is no embedding or one of another family, for a name that is
    used twice, and where a text encoder that takes them is not exported.
    """
    if not choices:
        return []
    encoders = tuple(FAMILIES[architecture.family].text_encoders)
    missing = [name for name in encoders if name not in components]
    if missing:
        raise InputError(
            f"--embedding {choices[0]}: {' and '.join(missing)} would take it and is not part of "
            "this export: leave the embedding out, or export the text encoders too"
        )
    found: dict[str, Embedding] = {}
    first = _first_id(architecture, encoders)
    for choice in choices:
        embedding = _load(choice, architecture, encoders, first, content)
        key = embedding.name.casefold()  # prompts are read without case
        if key in found:
            raise InputError(
                f"{choice.path}: the name {embedding.name!r} is that of {found[key].path} already: "
                "choose another with --embedding NAME=FILE"
            )
        found[key] = embedding
        first += len(embedding.ids)
    return list(found.values())


def _first_id(architecture: Architecture, encoders: Sequence[str]) -> int:
    """The id behind the vocabulary, which every text encoder must have in common with CLIP."""
    vocabularies = {getattr(architecture, name).vocabulary for name in encoders}
    if len(vocabularies) > 1 or min(vocabularies) < CLIP_VOCABULARY:
        sizes = " and ".join(map(str, sorted(vocabularies)))
        raise InputError(
            f"--embedding: text encoders of {sizes} tokens, where CLIP's {CLIP_VOCABULARY} were "
            "expected: embeddings cannot be added to this checkpoint"
        )
    return int(vocabularies.pop())


def _load(
    choice: EmbeddingChoice,
    architecture: Architecture,
    encoders: Sequence[str],
    first: int,
    content: Callable[[Path], str],
) -> Embedding:
    file = open_checkpoint(choice.path)
    found = find_vectors(file)
    if found is None:
        raise InputError(_no_embedding(file))
    keys = _keys(file, found.keys, architecture, encoders)
    vectors = {name: _read(file, key) for name, key in keys.items()}
    counts = {len(rows) for rows in vectors.values()}
    most = min(getattr(architecture, name).positions - 2 for name in encoders)
    if len(counts) > 1 or max(counts) > most:
        raise InputError(
            f"{choice.path}: an embedding of {' and '.join(map(str, sorted(counts)))} vectors, "
            f"where the same 1 to {most} were expected for every text encoder: use another file"
        )
    return Embedding(
        name=choice.name or checked_name(found.name or choice.path.stem),
        path=choice.path,
        content=content(choice.path),
        vectors=vectors,
        ids=range(first, first + counts.pop()),
    )


def _no_embedding(file: Checkpoint) -> str:
    kind = inspect_model(assemble(file)).kind
    first = next(iter(file.tensors), "none")
    if kind in OPTION_OF:
        return (
            f"{file.path}: a {kind} file, where an embedding was expected (first key: {first}): "
            f"pass it with {OPTION_OF[kind]}"
        )
    return (
        f"{file.path}: an embedding was expected, of one tensor of vectors or of clip_l and clip_g "
        f"(first key: {first}): give a textual inversion file"
    )


def _keys(
    file: Checkpoint,
    found: Mapping[str, str],
    architecture: Architecture,
    encoders: Sequence[str],
) -> Mapping[str, str]:
    """Text encoder -> key; raises InputError for vectors that are for another family."""
    wanted = {name: getattr(architecture, name).hidden_size for name in encoders}
    widths = {part: file.tensors[key].shape[-1] for part, key in found.items()}
    if len(encoders) == 1 and len(found) == 1 and ONLY in found:
        keys = {encoders[0]: found[ONLY]}
    else:
        keys = {name: found[KEYS[name]] for name in encoders if KEYS[name] in found}
    fits = {name: file.tensors[key].shape[-1] for name, key in keys.items()} == wanted
    of_sdxl = CLIP_G in found and "text_encoder_2" not in encoders
    if fits and not of_sdxl:
        return keys
    total = sum(widths.values())
    family = "sdxl" if CLIP_G in found else CONTEXT_FAMILIES.get(total, "an unknown family")
    raise InputError(
        f"{file.path}: an embedding for {family} ({_sum(widths)} numbers a token), and the "
        f"checkpoint is {architecture.family} ({_sum(wanted)}): use one trained for "
        f"{architecture.family}"
    )


def _sum(widths: Mapping[str, int]) -> str:
    return " + ".join(map(str, widths.values()))


def _read(file: Checkpoint, key: str) -> Array:
    """Read vectors as float32 [n, width]."""
    values = np.atleast_2d(file.read(key).astype(np.float32))
    if not np.isfinite(values).all():
        raise InputError(f"{file.path}: its vectors are not finite: damaged; download it again")
    return values
