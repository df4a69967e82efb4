"""Write a component's weights to one file, tensor by tensor, without holding more than two."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from converter.files import replacing
from converter.progress import Event, Progress
from converter.weights import WeightSource
from passes.weights import Place

WORKERS = 2
"""Tensors in flight: one is read and cast while the other is written. Each is held in memory."""


def file_size(places: Mapping[str, Place]) -> int:
    """Bytes of the external file that holds these weights."""
    return max((place.offset + place.nbytes for place in places.values()), default=0)


def write_weights(
    source: WeightSource, places: Mapping[str, Place], path: Path, progress: Progress, stage: str
) -> None:
    """Write every tensor at its place; the file appears under its name when it is whole."""
    total = file_size(places)
    with replacing(path) as work, work.open("r+b") as file:
        handle = file.fileno()
        os.posix_fallocate(handle, 0, total)

        def copy(name: str) -> int:
            place = places[name]
            data = source.read(name)
            if data.nbytes != place.nbytes:
                raise ValueError(f"{name}: {data.nbytes} bytes, {place.nbytes} were planned")
            view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
            written = 0
            while written < len(view):
                written += os.pwrite(handle, view[written:], place.offset + written)
            return written

        done = 0
        pool = ThreadPoolExecutor(WORKERS)
        try:
            for written in pool.map(copy, source.names()):
                done += written
                progress(Event(stage, done / total))
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
