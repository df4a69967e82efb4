"""The addresses of device memory in a BM1684X's DMA commands, and moving them.

Source: tpu-mlir, tools/model_tool/bm_tool.hpp (`update_cmd`). A command is 24 words of 32 bits; the
type stands in the low four bits of word 1. The compute engine's commands name no device memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converter.errors import InputError
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.reading import Bmodel

CHIP = "BM1684X"
DEVICE_MEMORY = 0x1_0000_0000
"""The lowest address of device memory; lower ones are inside the chip."""

_COMMAND_WORDS = 24
_ADDRESS_WORDS = (16, 18)
"""Source and destination: the low 32 of 40 bits; the other 8 are the low ones of the next word."""
_INDEX_WORD = 20
"""The same for a mask or indices, in commands of these types:"""
_INDEXED_TYPES = (2, 7, 8)  # masked select, gather, scatter

Words = npt.NDArray[np.uint32]
Addresses = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moves:
    """Where the device memory of a stage goes.

    The weight at ``starts[i]`` (an address) of `sizes[i]` bytes moves by ``shifts[i]``; everything
    from `behind` on, which lies behind the weights, moves by `rest`. `starts` rise.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    shifts: tuple[int, ...]
    behind: int
    rest: int

    def __call__(self, addresses: Addresses) -> Addresses:
        """The new addresses. Raises ValueError for one before `behind` that is in no weight."""
        starts, sizes, shifts = (
            np.array(numbers, np.int64) for numbers in (self.starts, self.sizes, self.shifts)
        )
        weight = (addresses >= DEVICE_MEMORY) & (addresses < self.behind)
        which = np.searchsorted(starts, addresses[weight], "right") - 1
        lost = (which < 0) | (addresses[weight] >= starts[which] + sizes[which])
        if lost.any():
            raise ValueError(f"the address {addresses[weight][lost][0]:#x} belongs to no weight")
        moved = addresses + np.where(addresses >= self.behind, self.rest, 0)
        moved[weight] += shifts[which]
        return moved


@dataclass(frozen=True)
class Relocated:
    """A list of `count` DMA commands of a bmodel, with their addresses moved.

    The last command only ends the list: it is shorter and has no address.
    """

    source: Bmodel
    binary: Binary
    count: int
    moves: Moves

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self.binary.size

    def chunks(self) -> Iterator[bytes]:
        """All of them at once. Raises InputError."""
        data = self.source.bytes_of(self.binary)
        end = max(self.count - 1, 0) * _COMMAND_WORDS * 4
        if end > len(data):
            raise InputError(f"{self.source.path}: a damaged bmodel: it lacks DMA commands")
        words = np.frombuffer(data[:end], "<u4").reshape(-1, _COMMAND_WORDS).copy()
        indexed = np.isin(words[:, 1] & 0xF, _INDEXED_TYPES)
        try:
            for word in _ADDRESS_WORDS:
                _move(words, word, np.ones_like(indexed), self.moves)
            _move(words, _INDEX_WORD, indexed, self.moves)
        except ValueError as e:
            raise InputError(f"{self.source.path}: its weights cannot be shared: {e}") from e
        yield words.tobytes() + data[end:]


def _move(words: Words, word: int, commands: npt.NDArray[np.bool_], moves: Moves) -> None:
    """Change the address at `word` of the chosen commands, in place."""
    low, high = words[commands, word].astype(np.int64), words[commands, word + 1].astype(np.int64)
    moved = moves(low | (high & 0xFF) << 32)
    words[commands, word] = moved & 0xFFFFFFFF
    words[commands, word + 1] = (high & ~0xFF) | (moved >> 32)
