"""What an export found out about a profile's graph, remembered for whoever asks beforehand.

Reading a graph takes up to a second; its hash and the places of its weights, which the keys of
everything later are made of, are a few lines. An export writes them to the cache folder, and a
forecast of the same architecture and profile reads them there instead of making the graph.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from converter.cache import content_key
from converter.errors import InputError
from converter.files import read_json, write_json
from converter.folders import cache_folder
from converter.interface import Interface
from passes.weights import Place


@dataclass(frozen=True)
class GraphRecord:
    """The graph's SHA-256, its length in bytes, and where each of its weights will lie."""

    sha256: str
    nbytes: int
    places: Mapping[str, Place]

    def save(self, template_key: str, interface: Interface) -> None:
        """Remember it, unless it is remembered already."""
        if find_record(template_key, interface) != self:
            places = {name: asdict(place) for name, place in self.places.items()}
            record = {"sha256": self.sha256, "nbytes": self.nbytes, "places": places}
            write_json(_path(template_key, interface), record)


def find_record(template_key: str, interface: Interface) -> GraphRecord | None:
    """The record of the graph that this template becomes behind these ports, if there is one."""
    try:
        data = read_json(_path(template_key, interface), "the record of a graph")
        places = {
            name: Place(**{**place, "shape": tuple(place["shape"])})
            for name, place in data["places"].items()
        }
        return GraphRecord(data["sha256"], data["nbytes"], places)
    except (InputError, AttributeError, KeyError, TypeError):
        return None  # it is only there to save time


def _path(template_key: str, interface: Interface) -> Path:
    made_from = {
        "template": template_key,
        "interface": interface.to_json(),
        **{package: importlib.metadata.version(package) for package in ("sdconv", "onnx-ir")},
    }
    return cache_folder() / "graph-records" / f"{content_key(made_from)[:32]}.json"
