"""A .gguf file, as stable-diffusion.cpp and ComfyUI-GGUF write them: only the header is read.

Format: `docs/gguf.md` of https://github.com/ggml-org/ggml, versions 2 and 3, little-endian: counts,
typed entries, names and extents (the last axis first) of the tensors, then their bytes, aligned.
ComfyUI-GGUF folds tensors to rows of 256 numbers and notes the shape that they had in an entry.
"""

import mmap
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path

from converter.checkpoint import DTYPES, Checkpoint, TensorInfo
from converter.errors import InputError
from converter.quantised import BLOCKS

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 20: "IQ4_NL", 23: "IQ4_XS", 24: "I8", 25: "I16",
    26: "I32", 27: "I64", 28: "F64", 30: "BF16",
}  # fmt: skip
"""ggml's number of a type -> its name here."""

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Number of an entry's type -> its code in Python's `struct`."""
TEXT, ARRAY = 8, 9

VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
FOLDED = "comfy.gguf.orig_shape."
"""Before a tensor's name: the entry of its shape."""

LARGEST_HEADER = 100_000_000
MOST_ENTRIES = 100_000
MOST_TEXTS = 500_000
"""Names and all; beyond this a reader would wait seconds. A language model's file may have more."""
MOST_AXES = 8


class HeaderError(ValueError):
    """The header is no whole one."""


class _Header:
    """The numbers and texts of a header, one after the other."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.position = 4
        self.texts = 0

    def take(self, code: str, count: int = 1) -> tuple[int | float, ...]:
        """Take numbers of a code of `struct`."""
        numbers = struct.Struct(f"<{count}{code}")
        return numbers.unpack_from(self.content, self.skip(numbers.size))

    def skip(self, length: int) -> int:
        """Pass over bytes; return where they begin."""
        begin, self.position = self.position, self.position + length
        if self.position > min(len(self.content), LARGEST_HEADER):
            raise HeaderError("it is cut short, or damaged")
        return begin

    def number(self, code: str) -> int:
        """Take one whole number."""
        return int(self.take(code)[0])

    def text(self) -> str:
        """Take a text after its length."""
        self.texts = _at_most(self.texts + 1, MOST_TEXTS, "texts, more than a picture model has")
        begin = self.skip(self.number("Q"))
        try:
            return self.content[begin : self.position].decode()
        except UnicodeDecodeError as e:
            raise HeaderError("it has a text that is none") from e

    def entry(self) -> object:
        """Take an entry's type and value: a number, a text, or a list of a few numbers.

        Other lists are passed over.
        """
        kind = self.number("I")
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.take(_code(kind))[0]
        inner, count = self.number("I"), self.number("Q")
        if inner != TEXT and count <= MOST_AXES:
            return list(self.take(_code(inner), count))
        if inner != TEXT:
            self.skip(count * struct.calcsize(f"<{_code(inner)}"))
            return None
        for _ in range(count):
            self.text()
        return None


def open_gguf(path: Path) -> Checkpoint:
    """Read the header; raises InputError for anything that is not a whole GGUF file."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        tensors, metadata = _read(path, content)
    except HeaderError as e:
        raise InputError(f"{path}: not a whole GGUF file: {e}: download it again") from e
    finally:
        content.close()
    return Checkpoint(path, tensors, metadata, "GGUF")


def _read(path: Path, content: mmap.mmap) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    header = _Header(content)
    version = header.number("I")
    if version not in VERSIONS:
        raise InputError(
            f"{path}: GGUF of version {version}, and little-endian files of versions "
            f"{' and '.join(map(str, VERSIONS))} are read: convert the model again"
        )
    count = _at_most(header.number("Q"), MOST_ENTRIES, "tensors")
    entries = {}
    for _ in range(_at_most(header.number("Q"), MOST_ENTRIES, "entries")):
        name = header.text()
        entries[name] = header.entry()
    places = [_place(path, header) for _ in range(count)]
    alignment = entries.get(ALIGNMENT, 32)
    if not isinstance(alignment, int) or alignment <= 0:
        raise HeaderError(f"its {ALIGNMENT} is {alignment!r:.40}")
    base = -(-header.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, info in places:
        if name in tensors:
            raise HeaderError(f"two tensors are called {name!r}")
        if base + info.end > len(content):
            raise HeaderError(f"tensor {name!r} ends behind the file's end")
        shape = _shape(name, info, entries)
        tensors[name] = TensorInfo(info.dtype, shape, base + info.begin, base + info.end, path)
    return tensors, {name: value for name, value in entries.items() if isinstance(value, str)}


def _place(path: Path, header: _Header) -> tuple[str, TensorInfo]:
    """Take a tensor's name, shape, type and place behind the header."""
    name = header.text()
    axes = _at_most(header.number("I"), MOST_AXES, f"axes of tensor {name!r}")
    shape = tuple(int(extent) for extent in header.take("Q", axes))[::-1]
    number, begin = header.number("I"), header.number("Q")
    dtype = TYPES.get(number)
    if dtype is None:
        raise InputError(
            f"{path}: tensor {name!r} has ggml's type {number}, which is not read; read are "
            f"{', '.join(TYPES.values())}: use a file in one of these"
        )
    numbers, size = BLOCKS.get(dtype) or (1, DTYPES[dtype].itemsize)
    if shape and shape[-1] % numbers:
        raise HeaderError(f"tensor {name!r} of shape {list(shape)} is no whole blocks of {dtype}")
    return name, TensorInfo(dtype, shape, begin, begin + prod(shape) // numbers * size)


def _shape(name: str, info: TensorInfo, entries: Mapping[str, object]) -> tuple[int, ...]:
    """The shape that a tensor had before it was folded."""
    noted = entries.get(FOLDED + name)
    if noted is None:
        return info.shape
    if not isinstance(noted, list) or not all(isinstance(n, int) and n >= 0 for n in noted):
        raise HeaderError(f"its {FOLDED}{name} is no shape")
    if prod(noted) != info.parameters:
        raise HeaderError(f"tensor {name!r} of {list(info.shape)} cannot have had shape {noted}")
    return tuple(noted)


def _code(kind: int) -> str:
    if kind not in SCALARS:
        raise HeaderError(f"it has an entry of type {kind}")
    return SCALARS[kind]


def _at_most(count: int, most: int, what: str) -> int:
    if count > most:
        raise HeaderError(f"it claims {count} {what}")
    return count
