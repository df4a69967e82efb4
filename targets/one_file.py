"""The weights of a linked bundle in one float32 file, for targets that read offsets of a file.

It lies in the cache folder, named by what it holds, and is made when it is first asked for.
"""

from pathlib import Path

from converter.bundle import BundleWeights
from converter.cache import Cache, content_key
from converter.files import require_space
from converter.folders import cache_folder
from converter.progress import Event, Progress
from converter.stream import file_size, write_weights
from passes.linked_weights import read_graph
from passes.weights import WEIGHTS_FILE, weight_places


def in_one_file(
    component: str, weights: BundleWeights, graph: Path, progress: Progress
) -> BundleWeights:
    """Return `weights`, in a file at the offsets of `graph`; linked ones are written to one."""
    if weights.file is not None:
        return weights
    places = weight_places(read_graph(graph))
    layout = content_key({n: [p.shape, p.dtype, p.offset] for n, p in places.items()})
    stage = f"weights {component}"

    def build(folder: Path) -> None:
        progress(Event(stage, 0.0, f"{component}: linked weights are written out, once"))
        require_space(cache_folder(), file_size(places), f"writing out the {component}'s weights")
        write_weights(weights, places, folder / WEIGHTS_FILE, progress, stage)

    made = Cache("weights").make(component, {"weights": weights.key, "layout": layout}, build)
    weights.file = made.path / WEIGHTS_FILE
    return weights
