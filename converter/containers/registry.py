"""Which reader opens a path: decided by what it is and how it begins, never by a file's ending."""

from pathlib import Path

from converter.checkpoint import Checkpoint
from converter.errors import InputError

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
GGUF = b"GGUF"
LFS_POINTER = b"version "


def open_container(path: Path, variant: str | None = None) -> Checkpoint:
    """Open a file, a shard, an index of shards or a diffusers folder by its headers alone.

    Raises InputError for what cannot be read. The names are those that the container holds.
    """
    from converter.containers.diffusers_folder import open_folder
    from converter.containers.shards import is_index, open_index, open_shard, shard_of

    try:
        if path.is_dir():
            return open_folder(path, variant)
        if is_index(path):
            return open_index(path)
        if shard_of(path.name) is not None:
            return open_shard(path)
        return open_file(path)
    except OSError as e:
        raise InputError(
            f"{e.filename or path}: cannot be read ({e.strerror}): check the path"
        ) from e


def open_file(path: Path) -> Checkpoint:
    """Open one file that holds all its tensors itself; raises InputError or OSError."""
    from converter.containers.pickle_file import open_pickle
    from converter.containers.safetensors_file import open_safetensors
    from converter.containers.scaled_float8 import descaled

    with path.open("rb") as file:
        first = file.read(8)
    if first.startswith(GGUF):
        raise InputError(f"{path}: a GGUF file, which is not read yet: give a .safetensors file")
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
