"""An embedding bound to a model: rows behind the vocabulary of its text encoders, and their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.architecture import Architecture
from converter.components import TEXT_ENCODERS
from converter.families.text import VOCABULARY_TABLE
from converter.merged import AppendedRows
from converter.weights import Array


@dataclass(frozen=True)
class Embedding:
    """An embedding file: its name in prompts, its vectors, and the token ids that they get.

    `content` is the file's BLAKE3. `vectors` maps each text encoder of the model to float32
    [n, width], n being the number of `ids`.
    """

    name: str
    path: Path
    content: str
    vectors: Mapping[str, Array]
    ids: Sequence[int]

    def record(self) -> dict[str, Any]:
        """As it stands in `bundle.json`."""
        return {
            "name": self.name,
            "path": str(self.path),
            "blake3": self.content,
            "vectors": len(self.ids),
            "ids": list(self.ids),
        }


def with_embeddings(architecture: Architecture, embeddings: Sequence[Embedding]) -> Architecture:
    """Return the architecture with the vocabularies that hold the embeddings too."""
    added = sum(len(embedding.ids) for embedding in embeddings)
    for name in TEXT_ENCODERS:
        text = getattr(architecture, name)
        if text is not None:
            longer = replace(text, vocabulary=text.vocabulary + added)
            architecture = replace(architecture, **{name: longer})
    return architecture


def appended_rows(embeddings: Sequence[Embedding], component: str) -> Mapping[str, AppendedRows]:
    """Tensor -> the rows that embeddings add to it, in the order of their ids."""
    mine = [e for e in embeddings if component in e.vectors]
    if not mine:
        return {}
    rows = np.concatenate([e.vectors[component] for e in mine])
    return {VOCABULARY_TABLE: AppendedRows(rows, [e.content for e in mine])}
