"""The contract of a text encoder's layout: where it lies, how it is read, what the UNet takes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from converter.architecture import TextEncoderArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import TensorRule, extent

HEAD_SIZE = 64


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
    """A tensor that every such text encoder has."""
    unused: ClassVar[tuple[str, ...]]
    """Beginnings of names that files carry below the prefix and that no graph needs."""

    @abstractmethod
    def infer(self, tensors: Mapping[str, TensorInfo]) -> TextEncoderArchitecture | None:
        """Read the hyper-parameters; None when there is no such text encoder."""

    @abstractmethod
    def rules(self, arch: TextEncoderArchitecture, prefix: str) -> Iterator[TensorRule]:
        """Every tensor of the text encoder; `prefix` is the file's spelling."""

    def prefix(self, names: Collection[str]) -> str:
        """The spelling of the prefix in a file of these tensor names."""
        return next((p for p in self.prefixes if p + self.probe in names), self.prefixes[0])

    def is_in(self, names: Collection[str]) -> bool:
        """Whether a file of these tensor names holds the text encoder in this layout."""
        return any(p + self.probe in names for p in self.prefixes)

    def architecture(
        self,
        tokens: TensorInfo,
        positions: TensorInfo,
        first: TensorInfo,
        layers: int,
        projection: int,
    ) -> TextEncoderArchitecture:
        """Put together what the shapes of the two embeddings and of the first MLP tell."""
        width = extent(tokens, 1)
        return TextEncoderArchitecture(
            vocabulary=extent(tokens, 0),
            positions=extent(positions, 0),
            hidden_size=width,
            intermediate_size=extent(first, 0),
            layers=layers,
            heads=max(1, width // HEAD_SIZE),
            activation=self.activation,
            clip_skip=self.clip_skip,
            final_norm=self.final_norm,
            projection_dim=(projection or width) if self.projected else 0,
        )


def count_layers(tensors: Collection[str], prefix: str) -> int:
    """Count the layers named ``<prefix>0.`` and so on."""
    numbers = {n.removeprefix(prefix).partition(".")[0] for n in tensors if n.startswith(prefix)}
    return len(numbers)
