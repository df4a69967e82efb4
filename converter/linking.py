"""`--link`: a bundle whose graphs read the user's own files; nothing is copied that need not be.

Linked is what a file holds as float32, float16 or bfloat16, in the graph's order or transposed.
What has to be computed (merged, summed, descaled, appended to) is written beside it. ONNX Runtime
reads external data only below the graph's own folder and follows no symbolic link out of it, so
the file gets a second name there, a hard link: whoever moves or deletes the first loses nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.errors import InputError
from converter.files import existing_parent, replacing
from converter.merged import MergedWeights
from passes.linked_weights import Link


def plan_links(weights: MergedWeights) -> tuple[Mapping[str, Link], Sequence[Path]]:
    """Choose the tensors that can be linked, and the files that they lie in."""
    found = {name: link for name in weights.names() if (link := weights.link(name)) is not None}
    files = list(dict.fromkeys(file for file, _ in found.values()))
    names = {file: link_name(index, file) for index, file in enumerate(files)}
    links = {name: replace(link, location=names[file]) for name, (file, link) in found.items()}
    return links, files


def link_name(index: int, file: Path) -> str:
    """What a linked file is called beside the graph; the number keeps two of one name apart."""
    return f"{index}-{file.name}"


def linked_records(files: Sequence[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """What `BundleComponent.linked` says of these files once they are linked into `folder`.

    Raises InputError where they lie on another disk.
    """
    disk = existing_parent(folder).stat().st_dev
    records = {}
    for index, file in enumerate(files):
        found = file.stat()
        if found.st_dev != disk:
            raise _cannot(folder, file, "it is on another disk")
        records[link_name(index, file)] = {
            "path": str(file.absolute()), "bytes": found.st_size, "mtime_ns": found.st_mtime_ns
        }  # fmt: skip
    return records


def link_files(records: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Give every recorded file its second name in `folder`; InputError where that is refused."""
    for name, record in records.items():
        file = Path(record["path"])
        with replacing(folder / name) as work:
            work.unlink()
            try:
                work.hardlink_to(file.resolve())
            except OSError as e:
                raise _cannot(folder, file, str(e.strerror)) from e


def _cannot(folder: Path, file: Path, why: str) -> InputError:
    return InputError(
        f"--link: {folder} cannot hold a link to {file} ({why}): name a folder on the disk of that "
        "file with -o, or leave --link out"
    )
