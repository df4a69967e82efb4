"""Weight map + weights -> the bytes of a weight region, in order, one tensor at a time."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from converter.files import write_at
from converter.weights import Array, WeightSource
from targets.sophgo.packing.weight_map import PackedWeight, WeightMap

WORKERS = 2
"""Tensors in flight: packed while those before them are hashed and written."""


@dataclass(frozen=True)
class Held:
    """An open file that holds packed weights already: where it does, by what each is.

    The keys are weights at offset 0.
    """

    handle: int = -1
    places: Mapping[PackedWeight, int] = field(default_factory=dict)

    def place_of(self, weight: PackedWeight) -> int | None:
        """Where it lies in that file."""
        return self.places.get(replace(weight, offset=0))


def write_region(
    weight_map: WeightMap,
    weights: WeightSource,
    handle: int,
    start: int,
    held: Held,
    on_bytes: Callable[[int], None],
) -> bytes:
    """Write a region from `start` of an open file on; return its SHA-256, which the header holds.

    The file has its full length already, zeros where nothing was written. What is `held` is copied
    from there, or left where it is, and not packed. `on_bytes` hears how much is done.
    """

    def piece(weight: PackedWeight) -> Array:
        place = held.place_of(weight)
        there = start + weight.offset
        if place is not None:
            count = weight.nbytes(weights.spec(weight.source).shape)
            packed = np.frombuffer(os.pread(held.handle, count, place), np.uint8)
            if (held.handle, place) == (handle, there):
                return packed
        else:
            packed = weight.pack(weights.read(weight.source))
            weights.forget(weight.source)
        write_at(handle, packed.data, there)
        return packed

    def constant(data: bytes, offset: int) -> Array:
        held = np.frombuffer(data, np.uint8)
        write_at(handle, held.data, start + offset)
        return held

    tasks = [(w.offset, partial(piece, w)) for w in weight_map.weights]
    tasks += [(c.offset, partial(constant, c.data, c.offset)) for c in weight_map.constants]
    tasks.sort(key=lambda task: task[0])
    digest, end = hashlib.sha256(), 0
    for (offset, _), data in zip(tasks, _ahead(task for _, task in tasks), strict=True):
        digest.update(bytes(offset - end))
        digest.update(data.data)
        end = offset + len(data)
        on_bytes(end)
    digest.update(bytes(weight_map.region - end))
    return digest.digest()


def copy_region(chunks: Iterable[bytes], handle: int, start: int) -> bytes:
    """Write a region that is at hand as it is; return its SHA-256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        write_at(handle, memoryview(chunk), start)
        digest.update(chunk)
        start += len(chunk)
    return digest.digest()


def _ahead(tasks: Iterable[Callable[[], Array]]) -> Iterator[Array]:
    """The results of `tasks` in order, a few of them worked on ahead of whoever takes them."""
    waiting: deque[Future[Array]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
