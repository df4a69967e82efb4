"""The weights of a linked bundle in one float32 file, for targets that read offsets of a file.

It lies in the cache folder, named by what it holds, and is made when it is first asked for.
"""

from collections.abc import Mapping
from pathlib import Path

from converter.bundle import BundleWeights
from converter.cache import Cache, content_key
from converter.files import require_space
from converter.folders import cache_folder
from converter.progress import Event, Progress
from converter.stream import file_size, write_weights
from passes.linked_weights import read_graph
from passes.weights import WEIGHTS_FILE, Place, weight_places


def in_one_file(
    component: str, weights: BundleWeights, graph: Path, progress: Progress
) -> BundleWeights:
    """Return `weights`, in a file at the offsets of `graph`; linked ones are written to one."""
    if weights.file is not None:
        return weights
    places = weight_places(read_graph(graph))
    stage = f"weights {component}"

    def build(folder: Path) -> None:
        progress(Event(stage, 0.0, f"{component}: linked weights are written out, once"))
        require_space(cache_folder(), file_size(places), f"writing out the {component}'s weights")
        write_weights(weights, places, folder / WEIGHTS_FILE, progress, stage)

    made = Cache("weights").make(component, _made_from(weights.key, places), build)
    weights.file = made.path / WEIGHTS_FILE
    return weights


def is_in_one_file(weights_key: str, graph: Path) -> bool:
    """Whether the weights of this linked graph were written out before."""
    places = weight_places(read_graph(graph))
    return Cache("weights").find(_made_from(weights_key, places)) is not None


def _made_from(weights_key: str, places: Mapping[str, Place]) -> dict[str, str]:
    layout = content_key({n: [p.shape, p.dtype, p.offset] for n, p in places.items()})
    return {"weights": weights_key, "layout": layout}
