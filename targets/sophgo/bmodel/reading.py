"""A bmodel file -> its tables, and its bytes on demand.

Source of the format: tpu-mlir, include/tpu_mlir/Builder/BM168x/bmodel.hpp. A header of 64 bytes
(magic, header size, size of the FlatBuffer, size of the rest, 44 bytes of zeros), a FlatBuffer
`Model`, then one region of bytes into which the tables' `Binary` structs point.

A file whose weight regions are cut out, or its kernel module too (`targets.sophgo.bmodel.cutting`),
is read as well: its tables and its header are those of the whole file, and `Bmodel` knows which
bytes are not there.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from converter.errors import InputError
from targets.sophgo.bmodel.kinds import (
    AnyTable,
    Binary,
    Child,
    Inline,
    Kind,
    Many,
    Number,
    Text,
    binaries,
    fields_of,
)
from targets.sophgo.bmodel.schema import Model, NetParameter

MAGIC = 0xFF55AAEE
HEADER_SIZE = 64
HEADER = struct.Struct("<IIIQ44x")
"""Magic, header size, size of the FlatBuffer, size of the region of bytes."""

_CHUNK = 1 << 24
"""Bytes held at a time while copying."""


@dataclass(frozen=True)
class Bmodel:
    """An open description of a bmodel file; its bytes are read when they are asked for.

    `header` is the first 64 bytes and the FlatBuffer, as they are in the file. `gaps` is what of
    weight regions and kernel module this file lacks, by rising start; every Binary keeps the number
    it has in the whole file.
    """

    path: Path
    header: bytes
    model: Model
    binary_size: int
    gaps: tuple[Binary, ...] = ()

    @cached_property
    def weights(self) -> tuple[Binary, ...]:
        """The weight regions, each once, by rising start."""
        regions = (weights_of(stage) for _, stage in stages(self.model))
        return tuple(sorted({r for r in regions if r}, key=lambda r: (r.start, r.size)))

    @property
    def lacks_weights(self) -> bool:
        """Whether the weight regions are cut out."""
        return bool(self.weights) and set(self.weights) <= {*self.gaps}

    @property
    def kernel(self) -> Binary | None:
        """The kernel module: a library of the vendor's that runs on the chip; None without one."""
        module = self.model.kernel_module
        return module.binary if module and module.binary and module.binary.size else None

    @property
    def lacks_kernel(self) -> bool:
        """Whether the kernel module is cut out."""
        return self.kernel is not None and self.kernel in self.gaps

    @property
    def whole_size(self) -> int:
        """Bytes of the file with everything in it."""
        return len(self.header) + self.binary_size

    def bytes_of(self, binary: Binary) -> bytes:
        """The bytes that a Binary stands for. Raises InputError where they were cut out."""
        return b"".join(self.chunks_of(binary))

    def chunks_of(self, binary: Binary) -> Iterator[bytes]:
        """The same, some megabytes at a time."""
        at, left = self._offset(binary), binary.size
        with self._open() as file:
            file.seek(at)
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise InputError(f"{self.path}: changed while it was read: try again")
                left -= len(chunk)
                yield chunk

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as e:
            raise InputError(f"{self.path}: cannot be read ({e.strerror})") from e

    def offset_of(self, binary: Binary) -> int:
        """Where in the file a Binary begins, or would."""
        missing = sum(gap.size for gap in self.gaps if gap.end <= binary.start)
        return len(self.header) + binary.start - missing

    def _offset(self, binary: Binary) -> int:
        if any(gap.start < binary.end and binary.start < gap.end for gap in self.gaps):
            raise InputError(f"{self.path}: these bytes are left out of this file: bind it first")
        return self.offset_of(binary)


def read_bmodel(path: Path) -> Bmodel:
    """Read the tables of a bmodel, whole or with gaps. Raises InputError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(HEADER_SIZE)
            if len(start) < HEADER_SIZE or struct.unpack_from("<I", start)[0] != MAGIC:
                raise InputError(f"{path}: not a bmodel: it does not begin like one")
            _, header_size, tables_size, binary_size = HEADER.unpack(start)
            if header_size != HEADER_SIZE:
                raise InputError(f"{path}: a bmodel with a header of {header_size} bytes; 64 known")
            if HEADER_SIZE + tables_size > size:
                raise InputError(f"{path}: cut short in its tables: fetch or compile it again")
            tables = file.read(tables_size)
    except OSError as e:
        raise InputError(f"{path}: not readable as a bmodel ({e.strerror})") from e
    try:
        model = read_model(tables)
    except DamagedTableError as e:
        raise InputError(f"{path}: a damaged or encrypted bmodel: {e}: compile it again") from e
    bmodel = Bmodel(path, start + tables, model, binary_size)
    _check_ranges(bmodel)
    for gaps in _cuts(bmodel):
        if size == bmodel.whole_size - sum(gap.size for gap in gaps):
            return replace(bmodel, gaps=gaps)
    raise InputError(
        f"{path}: {bmodel.whole_size} bytes were expected, {size} found: fetch or compile it again"
    )


def _cuts(bmodel: Bmodel) -> Iterator[tuple[Binary, ...]]:
    """What a file may lack."""
    yield ()
    yield bmodel.weights
    if bmodel.kernel is not None:
        yield tuple(sorted((*bmodel.weights, bmodel.kernel), key=lambda gap: gap.start))


def stages(model: Model) -> Iterator[tuple[str, NetParameter]]:
    """Every stage with the name of its network, in the file's order."""
    for net in model.net:
        for stage in net.parameter:
            yield net.name, stage


def weights_of(stage: NetParameter) -> Binary | None:
    """The weight region of a stage; None for a stage without weights."""
    binary = stage.coeff_mem.binary_coeff if stage.coeff_mem else None
    return binary if binary and binary.size else None


def _check_ranges(bmodel: Bmodel) -> None:
    """Every Binary lies in the file, and nothing that can be cut out begins inside another."""
    beyond = [b for b in binaries(bmodel.model) if b.end > bmodel.binary_size]
    if beyond:
        raise InputError(
            f"{bmodel.path}: a damaged bmodel: bytes {beyond[0].start} to {beyond[0].end} of "
            f"{bmodel.binary_size} are asked for: compile it again"
        )
    *_, largest = _cuts(bmodel)
    if any(next_.start < one.end for one, next_ in pairwise(largest)):
        raise InputError(f"{bmodel.path}: a damaged bmodel: its weight regions overlap")


class DamagedTableError(ValueError):
    """A FlatBuffer that is not what its schema says; the message says where."""


def read_model(tables: bytes) -> Model:
    """The root table of a bmodel's FlatBuffer. Raises DamagedTableError."""
    reader = _Reader(tables)
    return reader.table(Model, reader.target(0))


class _Reader:
    """Reads FlatBuffers; source: the FlatBuffers project's "FlatBuffer internals".

    Nothing stops a damaged file from pointing at one table many times over, so what is read may
    not grow beyond some times the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = 1024 + 16 * len(data)

    def target(self, at: int) -> int:
        """Follow the offset that stands at `at`."""
        return at + int(self._numbers("<I", at)[0])

    def table(self, table: type[AnyTable], at: int) -> AnyTable:
        """The table at `at` with everything below it."""
        vtable = at - int(self._numbers("<i", at)[0])
        size = int(self._numbers("<H", vtable)[0])
        known = (size - 4) // 2
        slots = self._numbers(f"<{max(known, 0)}H", vtable + 4)
        values: dict[str, Any] = {}
        places: dict[str, int] = {}
        for field in fields_of(table):
            slot = slots[field.id] if field.id < len(slots) else 0
            if slot:
                values[field.name] = self._value(field.kind, at + slot)
                if field.kind == Many(Number("B")):
                    places[field.name] = self.target(at + slot) + 4
            elif field.required:
                raise DamagedTableError(f"{table.__name__} has no {field.name}")
        return table(**values, places=places)

    def _value(self, kind: Kind, at: int) -> Any:
        match kind:
            case Number(code):
                return self._numbers(f"<{code}", at)[0]
            case Inline(cls):
                return cls(*self._numbers(cls.layout, at))
            case Child(cls):
                return self.table(cls, self.target(at))
            case Text():
                return self._text(self.target(at))
            case Many(item):
                return self._vector(item, self.target(at))

    def _text(self, at: int) -> str:
        (length,) = self._numbers("<I", at)
        try:
            return self._bytes(at + 4, length).decode()
        except UnicodeDecodeError as e:
            raise DamagedTableError(f"a name at {at} is no text") from e

    def _vector(self, item: Number | Inline | Child, at: int) -> Any:
        (count,) = self._numbers("<I", at)
        at += 4
        match item:
            case Number("B"):
                return self._bytes(at, count)
            case Number(code):
                return self._numbers(f"<{count}{code}", at)
            case Inline(cls):
                size = struct.calcsize(cls.layout)
                found = struct.iter_unpack(cls.layout, self._bytes(at, count * size))
                return tuple(cls(*values) for values in found)
            case Child(cls):
                return tuple(
                    self.table(cls, at + 4 * i + offset)
                    for i, offset in enumerate(self._numbers(f"<{count}I", at))
                )

    def _numbers(self, layout: str, at: int) -> tuple[Any, ...]:
        return struct.unpack(layout, self._bytes(at, struct.calcsize(layout)))

    def _bytes(self, at: int, size: int) -> bytes:
        if at < 0 or at + size > len(self._data):
            raise DamagedTableError(f"{size} bytes at {at} of {len(self._data)} are asked for")
        self._left -= size
        if self._left < 0:
            raise DamagedTableError("its tables refer to each other too often")
        return self._data[at : at + size]
