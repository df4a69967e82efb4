"""Write a component's weights to one file, a few rows of a tensor at a time, two tensors at once.

Where an earlier file differs in a few tensors only, those alone are written, into that very file.
It has a temporary name meanwhile, so a killed run leaves no mixture under the final name: the
next one finds no file there and writes it whole.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from converter.files import replacing, take, write_at
from converter.progress import Event, Progress
from converter.weights import Array
from passes.weights import Place

WORKERS = 2
"""Tensors in flight: one is read and cast while the other is written."""


class TensorStream(Protocol):
    """Tensors that come a few rows at a time; whole ones need not exist in memory."""

    def names(self) -> Sequence[str]:
        """Every tensor's name, in the order in which reading is fastest."""

    def blocks(self, name: str) -> Iterator[Array]:
        """The tensor's rows, a few at a time."""


def file_size(places: Mapping[str, Place]) -> int:
    """Bytes of the external file that holds these weights."""
    return max((place.offset + place.nbytes for place in places.values()), default=0)


def write_weights(
    source: TensorStream,
    places: Mapping[str, Place],
    path: Path,
    progress: Progress,
    stage: str,
    changed: Sequence[str] | None = None,
) -> None:
    """Write every tensor that has a place; the file appears under its name when it is whole.

    `changed` names the only tensors in which the file that lies there is not right, if one does.
    All are written nevertheless where somebody else uses that file (see `converter.files.take`).
    """
    with replacing(path) as work:
        if changed is not None and take(path, work):
            names = changed
        else:
            names = [name for name in source.names() if name in places]
            work.touch()  # the taken one may have been moved back
        with work.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, file_size(places))
            _write_tensors(source, places, names, file.fileno(), progress, stage)


def _write_tensors(
    source: TensorStream,
    places: Mapping[str, Place],
    names: Sequence[str],
    handle: int,
    progress: Progress,
    stage: str,
) -> None:
    def copy(name: str) -> int:
        place = places[name]
        written = 0
        for block in source.blocks(name):
            data = block.reshape(-1).view(np.uint8).data
            write_at(handle, data, place.offset + written)
            written += len(data)
        if written != place.nbytes:
            raise ValueError(f"{name}: {written} bytes, {place.nbytes} were planned")
        return written

    total = sum(places[name].nbytes for name in names)
    done = 0
    pool = ThreadPoolExecutor(WORKERS)
    try:
        for written in pool.map(copy, names):
            done += written
            progress(Event(stage, done / total))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
