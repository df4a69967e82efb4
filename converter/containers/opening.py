"""Open whatever holds a checkpoint: a file, shards, a diffusers folder, an adapter's folder."""

from pathlib import Path

from converter.checkpoint import Checkpoint
from converter.containers.adapter_folder import adapter_in
from converter.containers.diffusers_folder import open_folder
from converter.containers.shards import open_weights
from converter.errors import InputError


def open_checkpoint(path: Path, variant: str | None = None) -> Checkpoint:
    """Open a file, a shard, an index of shards or a folder by its headers alone.

    `variant` chooses among the precisions of a diffusers folder ("fp16"). The names are those that
    the container holds. Raises InputError for what cannot be read or is not whole.
    """
    try:
        if not path.is_dir():
            return open_weights(path)
        adapter = adapter_in(path)
        return open_folder(path, variant) if adapter is None else open_weights(adapter)
    except OSError as e:
        raise InputError(
            f"{e.filename or path}: cannot be read ({e.strerror}): check the path"
        ) from e
