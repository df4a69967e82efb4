"""The addresses of device memory in DMA commands, and moving them.

Sources: for BM1684X tpu-mlir's tools/model_tool/bm_tool.hpp (`update_cmd`); for all chips the
register tables of its debugger (python/debugger/target_*/regdef.py and opdef.py). A command is 24
words of 32 bits, a short one (bit 3 of word 0) is 4 words without an address: messages between
cores, and the end of a list. The type stands in the low bits of word 1. The compute engine's
commands name no device memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converter.errors import InputError
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.reading import Bmodel


@dataclass(frozen=True)
class Format:
    """What differs by chip: `high` bits of an address stand in the low ones of its second word.

    The type of a command has `kind` bits.
    """

    high: int
    kind: int


FORMATS = {
    "BM1684X": Format(high=8, kind=4),
    "BM1688": Format(high=8, kind=4),
    "CV186X": Format(high=8, kind=4),
    "BM1684X2": Format(high=13, kind=5),
    "BM1690": Format(high=13, kind=5),
    "BM1690E": Format(high=13, kind=5),
}
"""By the chip's name in a bmodel."""

_COMMAND_WORDS, _SHORT_WORDS = 24, 4
_ADDRESS_WORDS = (16, 18)
"""Source and destination: the low 32 bits; the others are in the next word."""
_INDEX_WORD = 20
"""The same for a mask, indices or what a compressed tensor needs, in commands of these types:"""
_INDEXED_TYPES = (2, 7, 8, 10, 11)  # masked select, gather, scatter, compress, decompress
_SYSTEM = 6
"""The type of short commands; the special function 0, behind the type, ends a list."""

Words = npt.NDArray[np.uint32]
Addresses = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moves:
    """Where the device memory of a stage goes.

    The weight at ``starts[i]`` (an address) of `sizes[i]` bytes moves by ``shifts[i]``; everything
    from `behind` on, which lies behind the weights, moves by `rest`. `starts` rise; lower addresses
    are inside the chip.
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
        weight = (addresses >= self.starts[0]) & (addresses < self.behind)
        which = np.searchsorted(starts, addresses[weight], "right") - 1
        lost = addresses[weight] >= starts[which] + sizes[which]
        if lost.any():
            raise ValueError(f"the address {addresses[weight][lost][0]:#x} belongs to no weight")
        moved = addresses + np.where(addresses >= self.behind, self.rest, 0)
        moved[weight] += shifts[which]
        return moved


@dataclass(frozen=True)
class Relocated:
    """A list of DMA commands of a bmodel, with their addresses moved.

    `count` commands, or where no table says how many, all until one ends the list.
    """

    source: Bmodel
    binary: Binary
    count: int | None
    moves: Moves

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self.binary.size

    def chunks(self) -> Iterator[bytes]:
        """All of them at once. Raises InputError."""
        data = self.source.bytes_of(self.binary)
        format_ = FORMATS[self.source.model.chip]
        words = np.frombuffer(data[: len(data) // 4 * 4], "<u4").copy()
        try:
            starts = _long_commands(words, self.count, format_)
            kinds = words[starts + 1] & ((1 << format_.kind) - 1)
            for word in _ADDRESS_WORDS:
                _move(words, starts + word, format_, self.moves)
            indexed = starts[np.isin(kinds, _INDEXED_TYPES)]
            _move(words, indexed + _INDEX_WORD, format_, self.moves)
        except IndexError as e:
            raise InputError(f"{self.source.path}: a damaged bmodel: it lacks DMA commands") from e
        except ValueError as e:
            raise InputError(f"{self.source.path}: its weights cannot be shared: {e}") from e
        yield words.tobytes() + data[words.nbytes :]


def _long_commands(words: Words, count: int | None, format_: Format) -> Places:
    """Where the commands begin that may have an address. Raises IndexError and ValueError."""
    starts = []
    at = seen = 0
    while seen != count:
        seen += 1
        if not words[at] >> 3 & 1:
            starts.append(at)
            at += _COMMAND_WORDS
            continue
        function, kind = divmod(int(words[at + 1]) & (8 << format_.kind) - 1, 1 << format_.kind)
        if kind != _SYSTEM:
            raise ValueError(f"a short command of type {kind} is not known")
        at += _SHORT_WORDS
        if count is None and function == 0:
            break
    return np.array(starts, np.int64)


def _move(words: Words, places: Places, format_: Format, moves: Moves) -> None:
    """Change the addresses at these places, in place."""
    mask = (1 << format_.high) - 1
    low, high = words[places].astype(np.int64), words[places + 1].astype(np.int64)
    moved = moves(low | (high & mask) << 32)
    words[places] = moved & 0xFFFFFFFF
    words[places + 1] = (high & ~mask) | (moved >> 32)
