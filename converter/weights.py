"""The contract between weights and everything that uses them: name -> tensor, one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and numpy dtype name of a tensor that nobody has read yet."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class WeightSource(Protocol):
    """Weights of one component under the names of its graph's initializers.

    Reading is lazy: `read` touches one tensor (merging adapters, renaming, casting as needed), so
    peak memory is about one tensor.
    """

    @property
    def key(self) -> str:
        """Content hash of everything the values depend on: sources, adapters, scales, rules."""

    @property
    def file(self) -> Path | None:
        """A file holding every tensor at the graph's own offsets, where there is one."""

    @property
    def tensor_keys(self) -> Mapping[str, str]:
        """`key` tensor by tensor, where that is known; empty where it is not."""

    def names(self) -> Sequence[str]:
        """Every tensor's name."""

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype, without reading; raises KeyError for an unknown name."""

    def read(self, name: str) -> Array:
        """The tensor; raises KeyError for an unknown name."""

    def forget(self, name: str) -> None:
        """Give back the memory that reading a tensor took, where its file is mapped.

        Who reads a model once calls this; another `read` fetches the tensor again.
        """
