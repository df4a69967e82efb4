"""A bmodel that is to be written: its header, where its bytes come from, where weights belong."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from converter.errors import InputError
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.reading import HEADER_SIZE, Bmodel, read_model, stages, weights_of
from targets.sophgo.bmodel.schema import Model
from targets.sophgo.bmodel.writing import aligned, header_of

SHA256_SIZE = 32


class Content(Protocol):
    """Bytes that can be had piecemeal."""

    @property
    def size(self) -> int:
        """How many there are."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, some megabytes at a time. Raises InputError."""


@dataclass(frozen=True)
class Copied:
    """A run of bytes of another bmodel."""

    source: Bmodel
    binary: Binary

    @property
    def size(self) -> int:
        """How many there are."""
        return self.binary.size

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, some megabytes at a time. Raises InputError."""
        return self.source.chunks_of(self.binary)


@dataclass(frozen=True)
class Piece:
    """Bytes at `offset` in the file to be written."""

    offset: int
    content: Content


@dataclass(frozen=True)
class Part:
    """A run of weights at `offset` in a region: what input number `source` has at `binary`."""

    offset: int
    source: int
    binary: Binary


@dataclass(frozen=True)
class WeightRegion:
    """A place for `size` bytes of weights at `offset` in the file to be written.

    `parts` say which bytes of which input they are. `users` are the numbers of the inputs whose
    stages read this region, `check_codes` the places in the file of their SHA-256 of these bytes
    (32 bytes each; a stage without one is not counted).
    """

    offset: int
    size: int
    parts: tuple[Part, ...]
    users: tuple[int, ...]
    check_codes: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """A bmodel of `size` bytes: `header`, then `pieces` and `weights`, zeros between them."""

    header: bytes
    pieces: tuple[Piece, ...]
    weights: tuple[WeightRegion, ...]
    size: int

    def begins_like(self, header: bytes) -> bool:
        """Whether these are the first bytes of such a file, whatever its weights."""
        theirs, ours = bytearray(header), bytearray(self.header)
        for bytes_ in (theirs, ours):
            for place in (place for region in self.weights for place in region.check_codes):
                bytes_[place : place + SHA256_SIZE] = bytes(SHA256_SIZE)
        return theirs == ours


@dataclass(frozen=True)
class Reserved:
    """Room for weights in a region of bytes under construction."""

    binary: Binary
    parts: tuple[Part, ...]
    users: tuple[int, ...]


class RegionBuilder:
    """Puts runs of bytes one after another, equal ones once, each at a multiple of 4096.

    The vendor's tool does the same (`ModelGen::WriteBinary`), so that its files come out. Two runs
    are compared by size and SHA-256.
    """

    def __init__(self) -> None:
        self.size = 0
        self.pieces: list[tuple[Binary, Content]] = []
        self._known: dict[tuple[int, bytes], Binary] = {}

    def add(self, content: Content) -> Binary:
        """Place these bytes, or find where they are. Raises InputError."""
        digest = hashlib.sha256()
        for chunk in content.chunks():
            digest.update(chunk)
        key = content.size, digest.digest()
        if key not in self._known:
            self._known[key] = self.reserve(content.size)
            self.pieces.append((self._known[key], content))
        return self._known[key]

    def reserve(self, size: int) -> Binary:
        """Leave room for bytes that are not at hand."""
        binary = Binary(self.size, size)
        self.size = aligned(binary.end)
        return binary

    def layout(self, model: Model, weights: Sequence[Reserved]) -> Layout:
        """The file with these tables, whose Binaries this builder gave."""
        return layout_of(header_of(model, self.size), self.size, self.pieces, weights)


def layout_of(
    header: bytes,
    binary_size: int,
    pieces: Sequence[tuple[Binary, Content]],
    weights: Sequence[Reserved],
) -> Layout:
    """The file of a header and what its Binaries stand for."""
    codes = _check_codes(header)
    return Layout(
        header=header,
        pieces=tuple(Piece(len(header) + binary.start, content) for binary, content in pieces),
        weights=tuple(
            WeightRegion(
                len(header) + room.binary.start,
                room.binary.size,
                room.parts,
                room.users,
                tuple(place for binary, place in codes if binary == room.binary),
            )
            for room in weights
        ),
        size=len(header) + binary_size,
    )


def _check_codes(header: bytes) -> list[tuple[Binary, int]]:
    """Weight region and place in the file of every stage's check code."""
    found = []
    for _, stage in stages(read_model(header[HEADER_SIZE:])):
        binary, memory = weights_of(stage), stage.coeff_mem
        if binary and memory and len(memory.check_code) == SHA256_SIZE:
            found.append((binary, HEADER_SIZE + memory.places["check_code"]))
    return found


def write_frame(layout: Layout, path: Path) -> None:
    """Write everything but the weights, which are zeros then. Raises InputError."""
    try:
        with path.open("wb") as file:
            file.truncate(layout.size)
            file.write(layout.header)
            for piece in layout.pieces:
                file.seek(piece.offset)
                file.writelines(piece.content.chunks())
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})") from e
