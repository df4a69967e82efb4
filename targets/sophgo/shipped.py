"""Skeletons that ship with the program: SD1.5 for a BM1684X at the sizes of the field.

`skeletons/` holds an archive for each, as 'sdconv skeleton export' writes them, without the
compiler's logs and without the chip's kernel module: a library of the vendor's, 5.6 MB in every
bmodel, whose licence does not say that others may pass it on. Where the compiler is installed the
module is taken from there, and the skeleton is, byte for byte, what compiling gives. Elsewhere the
bmodel has none, and the device's runtime takes the module that it has built in, as for every bmodel
without one (sophgo/tpu-runtime, src/bmruntime_bmodel.cpp).

`index.json` tells the hash of a graph of fixed shapes without making it, and that of the kernel
module. All of it is made by `python -m targets.sophgo.shipping`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from converter.cache import ENTRY_FILE, content_key
from targets.base import CompileJob
from targets.skeletons import unpack
from targets.sophgo.bmodel.cutting import put_kernel
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.compilation import BMODEL_FILE
from targets.sophgo.graphs import given, passes_hash

FOLDER = Path(__file__).with_name("skeletons")
INDEX_FILE = "index.json"

WITHOUT_KERNEL = {"kernel module": "left out"}
"""What a cache entry is made from besides, where the vendor's module was not at hand."""


@dataclass(frozen=True)
class Index:
    """What is known of the archives of a folder: for which target, and in words what they are.

    `kernel`: file name and SHA-256 of the chip's kernel module. `graphs`: `graph_key` -> SHA-256 of
    the graph of fixed shapes that the passes with the hash `passes` make.
    """

    target: str
    described: str
    kernel: tuple[str, str]
    passes: str
    graphs: Mapping[str, str]

    @classmethod
    @cache
    def load(cls, folder: Path) -> "Index":
        """Read the index of a folder."""
        data = json.loads((folder / INDEX_FILE).read_text())
        file_name, digest = data.pop("kernel")
        return cls(**data, kernel=(file_name, digest))


def what_ships(target: str) -> str | None:
    """In words, what can be bound for a target without its compiler; None: nothing."""
    index = Index.load(FOLDER)
    return index.described if index.target == target else None


def static_graph_hash(job: CompileJob) -> str | None:
    """SHA-256 of the job's graph of fixed shapes, if a skeleton that ships was made of it.

    None after a change of the passes, too: they may make another graph of it now.
    """
    index = Index.load(FOLDER)
    return index.graphs.get(graph_key(job)) if index.passes == passes_hash() else None


def graph_key(job: CompileJob) -> str:
    """What the job's graph of fixed shapes is called in the index."""
    return content_key(given(job))[:16]


def find_archive(inputs: Mapping[str, str]) -> Path | None:
    """The archive of the skeleton that is made from these inputs, if it ships."""
    path = FOLDER / archive_name(content_key(inputs))
    return path if path.is_file() else None


def archive_name(key: str) -> str:
    """The file of the skeleton of this key."""
    return f"{key[:16]}.tar.xz"


def find_kernel(libraries: Path) -> bytes | None:
    """The chip's kernel module, if the one that belongs to these skeletons lies in `libraries`."""
    name, known = Index.load(FOLDER).kernel
    try:
        content = (libraries / name).read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == known else None


def fill(archive: Path, kernel: bytes | None, folder: Path) -> None:
    """Unpack a skeleton into the empty `folder`, with the kernel module where there is one."""
    work = folder / "archive"
    work.mkdir()
    unpack(archive, work)
    (skeleton,) = work.iterdir()
    (skeleton / ENTRY_FILE).unlink()  # the cache writes its own
    for file in skeleton.iterdir():
        file.rename(folder / file.name)
    skeleton.rmdir()
    work.rmdir()
    if kernel is not None:
        path = folder / BMODEL_FILE
        put_kernel(read_bmodel(path), kernel, path)
