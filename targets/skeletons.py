"""Skeletons carried to a machine that has no compiler.

An archive (`.tar.xz`) holds cache entries as they are, each a folder under its own name. They serve
the version of this program that made them: what an entry was made from, down to the source of the
steps, is what its name is the hash of.
"""

import lzma
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from converter.cache import SKELETONS, Cache, Entry, place, read_entry
from converter.errors import InputError
from converter.files import replacing, require_space

DICTIONARY = 1 << 26
"""Bytes that the compressor looks back: every bmodel of a chip begins with the same 5.6 MB."""


def export_skeletons(entries: Sequence[Path], archive: Path) -> None:
    """Write cache entries into `archive`, atomically."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": DICTIONARY}]
    with (
        replacing(archive) as work,
        lzma.open(work, "wb", filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for folder in sorted(entries):
            for file in sorted(folder.iterdir()):
                tar.add(file, f"{folder.name}/{file.name}", recursive=False, filter=_anonymous)


def import_skeletons(archive: Path) -> list[Entry]:
    """Put the skeletons of an archive into the cache; those that are there already stay.

    Returns them by label. Raises InputError for a file that is no such archive; nothing of it is
    kept then.
    """
    cache = Cache(SKELETONS)
    with cache.scratch() as work:
        unpack(archive, work)
        found = [read_entry(folder) for folder in sorted(work.iterdir())]
        if not found:
            raise InputError(f"{archive}: there is no skeleton in it")
        for entry in found:
            place(entry.path, cache.folder / entry.path.name)
    taken = (read_entry(cache.folder / entry.path.name) for entry in found)
    return sorted(taken, key=lambda entry: entry.label)


def unpack(archive: Path, work: Path) -> None:
    """Put the folders of an archive into `work`. Raises InputError for what is no such archive."""
    try:
        with lzma.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                content = tar.extractfile(member) if member.isreg() else None
                if content is None or len(name.parts) != 2 or ".." in name.parts:
                    raise InputError(
                        f"{archive}: {member.name!r} does not belong in an archive "
                        "of 'sdconv skeleton export'"
                    )
                require_space(work, member.size, f"unpacking {archive.name}")
                (work / name).parent.mkdir(exist_ok=True)
                with (work / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (OSError, lzma.LZMAError, tarfile.TarError, EOFError) as e:
        raise InputError(
            f"{archive}: not an archive of 'sdconv skeleton export' ({e}): fetch it again"
        ) from e


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who made it and when: equal skeletons make equal archives."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info
