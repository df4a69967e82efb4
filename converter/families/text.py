"""The contract of a text encoder's layout: where it lies, how it is read, what the UNet takes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from converter.architecture import TextEncoderArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import HEAD_SIZE, TensorRule, extent

VOCABULARY_TABLE = "embeddings.token_embedding.weight"
"""The graph's name of the table [vocabulary, width] that tokens are looked up in."""


@dataclass(frozen=True)
class TextLayout(ABC):
    """Where a family keeps one text encoder, and which of its hidden states the UNet takes.

    `prefixes` are the spellings in use, the usual one first. For `clip_skip`, `final_norm` and
    `activation` see `TextEncoderArchitecture`; none of them leaves a trace in the weights.
    `projected`: the UNet also takes the pooled output, projected.
    """

    prefixes: tuple[str, ...]
    activation: str
    clip_skip: int = 0
    final_norm: bool = True
    projected: bool = False

    probe: ClassVar[str]
    """The embedding of tokens, which every such text encoder has."""
    positions: ClassVar[str]
    """The embedding of positions."""
    layers: ClassVar[str]
    """What the layers' names begin with, before their number."""
    first_mlp: ClassVar[str]
    """The first matrix of a layer's MLP."""
    unused: ClassVar[tuple[str, ...]]
    """Beginnings of names that files carry below the prefix and that no graph needs."""

    def infer(self, tensors: Mapping[str, TensorInfo]) -> TextEncoderArchitecture | None:
        """Read the hyper-parameters; None when there is no such text encoder."""
        prefix = self.prefix(tensors)
        tokens = tensors.get(f"{prefix}{self.probe}")
        positions = tensors.get(f"{prefix}{self.positions}")
        first = tensors.get(f"{prefix}{self.layers}0.{self.first_mlp}")
        if tokens is None or positions is None or first is None:
            return None
        width = extent(tokens, 1)
        projection = self.projection_dim(tensors, prefix) or width
        return TextEncoderArchitecture(
            vocabulary=extent(tokens, 0),
            positions=extent(positions, 0),
            hidden_size=width,
            intermediate_size=extent(first, 0),
            layers=_count_layers(tensors, f"{prefix}{self.layers}"),
            heads=max(1, width // HEAD_SIZE),
            activation=self.activation,
            clip_skip=self.clip_skip,
            final_norm=self.final_norm,
            projection_dim=projection if self.projected else 0,
        )

    @abstractmethod
    def projection_dim(self, tensors: Mapping[str, TensorInfo], prefix: str) -> int:
        """Numbers in the projected output, 0 when it is not in the file."""

    @abstractmethod
    def rules(self, arch: TextEncoderArchitecture, prefix: str) -> Iterator[TensorRule]:
        """Every tensor of the text encoder; `prefix` is the file's spelling."""

    def prefix(self, names: Collection[str]) -> str:
        """The spelling of the prefix in a file of these tensor names."""
        return next((p for p in self.prefixes if p + self.probe in names), self.prefixes[0])

    def is_in(self, names: Collection[str]) -> bool:
        """Whether a file of these tensor names holds the text encoder in this layout."""
        return any(p + self.probe in names for p in self.prefixes)


def _count_layers(tensors: Collection[str], prefix: str) -> int:
    """Count the layers named ``<prefix>0.`` and so on."""
    numbers = {n.removeprefix(prefix).partition(".")[0] for n in tensors if n.startswith(prefix)}
    return len(numbers)
