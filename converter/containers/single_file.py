"""One file that holds all its tensors: which reader, by how it begins, never by its ending."""

from pathlib import Path

from converter.checkpoint import Checkpoint
from converter.containers.gguf_file import open_gguf
from converter.containers.pickle_file import open_pickle
from converter.containers.safetensors_file import open_safetensors
from converter.containers.scaled_float8 import descaled
from converter.errors import InputError

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
GGUF = b"GGUF"
LFS_POINTER = b"version "


def open_file(path: Path) -> Checkpoint:
    """Open the file by its header; raises InputError or OSError."""
    with path.open("rb") as file:
        first = file.read(8)
    if first.startswith(GGUF):
        return open_gguf(path)
    if first == LFS_POINTER:
        raise InputError(f"{path}: a Git LFS pointer, not the file itself: run 'git lfs pull'")
    if first.startswith(ZIP) or _is_bare_pickle(path, first):
        opened = open_pickle(path)
    else:
        opened = open_safetensors(path)
    return opened.with_tensors(descaled(path, opened.tensors))


def _is_bare_pickle(path: Path, first: bytes) -> bool:
    """A safetensors header of 640 bytes begins like a pickle; only its length can be a length."""
    length = int.from_bytes(first, "little")
    return first.startswith(PICKLE) and length > path.stat().st_size
