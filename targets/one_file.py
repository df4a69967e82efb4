"""The weights of a linked bundle in one float32 file, for targets that read offsets of a file.

It lies in the cache folder, named by what it holds, and is made when it is first asked for.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.cache import Cache, content_key
from converter.files import require_space
from converter.folders import cache_folder
from converter.progress import Event, Progress
from converter.stream import file_size
from converter.weights import Array, TensorSpec, WeightSource
from passes.linked_weights import read_graph
from passes.weights import WEIGHTS_FILE, Place, weight_places


@dataclass(frozen=True)
class FiledWeights:
    """A `WeightSource` with the file that holds all of it."""

    source: WeightSource
    file: Path

    @property
    def key(self) -> str:
        """That of the source."""
        return self.source.key

    def names(self) -> Sequence[str]:
        """Those of the source."""
        return self.source.names()

    def spec(self, name: str) -> TensorSpec:
        """That of the source."""
        return self.source.spec(name)

    def read(self, name: str) -> Array:
        """That of the source."""
        return self.source.read(name)


def in_one_file(
    component: str, weights: WeightSource, graph: Path, progress: Progress
) -> WeightSource:
    """Return `weights` if they lie in a file at the offsets of `graph`, else written so."""
    if weights.file is not None:
        return weights
    places = weight_places(read_graph(graph))
    layout = content_key({n: [p.shape, p.dtype, p.offset] for n, p in places.items()})
    stage = f"weights {component}"

    def build(folder: Path) -> None:
        progress(Event(stage, 0.0, f"{component}: linked weights are written out, once"))
        require_space(cache_folder(), file_size(places), f"writing out the {component}'s weights")
        _write(weights, places, folder / WEIGHTS_FILE, stage, progress)

    made = Cache("weights").make(component, {"weights": weights.key, "layout": layout}, build)
    return FiledWeights(weights, made.path / WEIGHTS_FILE)


def _write(
    weights: WeightSource, places: dict[str, Place], path: Path, stage: str, progress: Progress
) -> None:
    total = file_size(places)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, total)
        for name, place in places.items():
            file.seek(place.offset)
            file.write(weights.read(name).tobytes())
            progress(Event(stage, (place.offset + place.nbytes) / total))
