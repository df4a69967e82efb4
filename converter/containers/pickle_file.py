"""A .ckpt, .pt or .bin file of torch, read without running anything in it.

`torch.save` writes a zip whose entries are not compressed: a pickle that says what there is, and
one entry per storage, so tensors are places in the file. Before torch 1.6 it wrote five pickles
in a row (magic number, protocol, system, the value, the storages' keys) and then the storages,
each after its length. Format: `torch/serialization.py` of https://github.com/pytorch/pytorch.
"""

import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from converter.checkpoint import DTYPES, Checkpoint
from converter.containers.pickle_program import LARGEST_PROGRAM, Called, ProgramError, run
from converter.containers.torch_pickle import StoredTensor, build, place, state_dict, texts
from converter.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""A zip entry's own header: signature, and the lengths of the name and the extra field."""

Storages = Mapping[str, tuple[int, int]]
"""A storage's key -> its first byte in the file, and its length in bytes."""

Read = tuple[dict[str, StoredTensor], Storages, dict[str, str]]
"""Tensors, storages, metadata."""


def open_pickle(path: Path) -> Checkpoint:
    """Read the pickle; raises InputError for anything that is not a whole checkpoint."""
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                tensors, storages, metadata = _read_zip(path, file)
                container = "PyTorch pickle"
            else:
                tensors, storages, metadata = _read_legacy(path, file)
                container = "PyTorch pickle (before torch 1.6)"
    except ProgramError as e:
        raise InputError(f"{path}: a damaged or foreign pickle: {e}: download it again") from e
    places = {name: place(path, name, tensor, storages) for name, tensor in tensors.items()}
    return Checkpoint(path, places, metadata, container)


def _read_zip(path: Path, file: IO[bytes]) -> Read:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OverflowError, struct.error, LookupError) as e:
        raise ProgramError(f"the zip around it cannot be read ({e})") from e
    entries = {entry.filename: entry for entry in archive.infolist()}
    for name in entries:
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
            raise ProgramError(f"the zip around it has an entry named {name!r}")
    programs = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
    if len(programs) != 1:
        raise ProgramError(f"a zip with {len(programs)} entries named data.pkl, not one")
    root = programs[0].removesuffix("data.pkl")
    size = path.stat().st_size
    program = _stored(file, entries[programs[0]], size)
    if program[1] > LARGEST_PROGRAM:
        raise ProgramError(f"{program[1]} bytes of instructions")
    order = entries.get(f"{root}byteorder")
    if order is not None and _bytes(file, *_stored(file, order, size)) != b"little":
        raise ProgramError("written on a big-endian machine, which is not read")
    value = run(BytesIO(_bytes(file, *program)), build)
    tensors = state_dict(path, value)
    data = f"{root}data/"
    keys = {tensor.storage.key for tensor in tensors.values()}
    needed = {key: entries[data + key] for key in keys if data + key in entries}
    storages = {key: _stored(file, entry, size) for key, entry in needed.items()}
    return tensors, storages, texts(value)


def _stored(file: IO[bytes], entry: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """First byte and length of an entry; raises ProgramError unless it is stored as it is."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ProgramError(
            f"entry {entry.filename!r} is compressed, and torch never writes that: unpack it, and "
            "save it again with torch"
        )
    header = _bytes(file, entry.header_offset, LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise ProgramError(f"entry {entry.filename!r} is not where the zip says")
    _, name, extra = LOCAL_HEADER.unpack(header)
    begin = entry.header_offset + LOCAL_HEADER.size + name + extra
    if begin + entry.file_size > size:
        raise ProgramError(f"entry {entry.filename!r} is cut short")
    return begin, entry.file_size


def _bytes(file: IO[bytes], begin: int, length: int) -> bytes:
    file.seek(begin)
    return file.read(length)


def _read_legacy(path: Path, file: IO[bytes]) -> Read:
    program = BytesIO(_bytes(file, 0, LARGEST_PROGRAM))
    if run(program, build) != LEGACY_MAGIC:
        raise ProgramError("it does not begin like torch's")
    run(program, build)  # the protocol
    run(program, build)  # the system; every one that runs torch is little-endian
    widths: dict[str, int] = {}

    def noting_widths(called: Called, arguments: tuple[Any, ...]) -> object:
        made = build(called, arguments)
        if isinstance(made, StoredTensor) and made.dtype is not None:
            widths[made.storage.key] = DTYPES[made.dtype].itemsize
        return made

    value = run(program, noting_widths)
    keys = run(program, build)
    storages = _legacy_storages(file, keys, widths, program.tell(), path.stat().st_size)
    return state_dict(path, value), storages, texts(value)


def _legacy_storages(
    file: IO[bytes], keys: object, widths: Mapping[str, int], begin: int, size: int
) -> Storages:
    """Walk over the storages: each is 8 bytes of length in elements, then the elements.

    `widths` maps keys to the bytes of an element, of all tensors, wanted or not.
    """
    storages: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in widths:
            raise ProgramError("it has storages that no tensor of a known dtype lies in")
        count = int.from_bytes(_bytes(file, begin, 8), "little")
        storages[key] = begin + 8, count * widths[key]
        begin += 8 + storages[key][1]
        if begin > size:
            raise ProgramError("it is cut short")
    return storages
