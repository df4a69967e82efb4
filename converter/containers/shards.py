"""Checkpoints split into shards: ``*.index.json``, or files ending ``-00001-of-0000N``.

Format: what `save_pretrained(max_shard_size=...)` of diffusers and transformers writes. The index
maps each tensor to the file beside it that holds it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from converter.checkpoint import Checkpoint, TensorInfo
from converter.containers.single_file import open_file
from converter.errors import InputError
from converter.files import read_json

INDEX = re.compile(r".+\.(safetensors|bin)\.index(\.\w+)?\.json")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>(\.\w+)+)")
LARGEST_INDEX = 100_000_000
"""Bytes, like the header of a safetensors file."""


@dataclass(frozen=True)
class Shard:
    """A shard's file name, taken apart."""

    stem: str
    count: int
    end: str

    def names(self) -> list[str]:
        """The file names of all shards."""
        numbers = range(1, self.count + 1)
        return [f"{self.stem}-{n:05}-of-{self.count:05}{self.end}" for n in numbers]


def is_index(path: Path) -> bool:
    """Whether the name is that of an index of shards."""
    return INDEX.fullmatch(path.name) is not None


def shard_of(name: str) -> Shard | None:
    """Take a shard's file name apart; None for any other name."""
    match = SHARD.fullmatch(name)
    return None if match is None else Shard(match["stem"], int(match["count"]), match["end"])


def open_weights(path: Path) -> Checkpoint:
    """Open an index of shards, all shards of one, or a single file."""
    if is_index(path):
        return open_index(path)
    return open_file(path) if shard_of(path.name) is None else open_shard(path)


def open_index(path: Path) -> Checkpoint:
    """Open every shard that the index names; raises InputError unless both sides agree."""
    if path.stat().st_size > LARGEST_INDEX:
        raise InputError(f"{path}: too large for an index of shards: download it again")
    places = read_json(path, "an index of shards").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise InputError(f"{path}: not an index of shards: no 'weight_map' of file names in it")
    for name in set(places.values()):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise InputError(
                f"{path}: shard {name!r} does not lie beside its index: such an index is not "
                "followed; download the checkpoint again from a source that you trust"
            )
    found = _union(path, sorted(set(places.values())))
    odd = [n for n, file in places.items() if n not in found or found[n].file.name != file]
    odd += [name for name in found if name not in places]
    if odd:
        raise InputError(
            f"{path}: the index and its shards disagree on {len(odd)} tensors, first "
            f"{odd[0]!r}: download the index and every shard again"
        )
    return Checkpoint(path, found, container=_words(len(set(places.values()))))


def open_shard(path: Path) -> Checkpoint:
    """Open all shards of which `path` is one."""
    shard = shard_of(path.name)
    assert shard is not None
    return Checkpoint(path, _union(path, shard.names()), container=_words(shard.count))


def _words(count: int) -> str:
    return f"safetensors in {count} shards"


def _union(path: Path, names: list[str]) -> dict[str, TensorInfo]:
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(names)} shards are missing beside it, first "
            f"{missing[0]}: download them into the same folder"
        )
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        for tensor, info in open_file(path.parent / name).tensors.items():
            if tensor in tensors:
                raise InputError(
                    f"{path}: tensor {tensor!r} lies in two shards, {tensors[tensor].file.name} "
                    f"and {name}: download the shards again"
                )
            tensors[tensor] = info
    return tensors
