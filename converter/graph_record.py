"""A component's graph behind a profile's ports, and what is to be known of it, remembered.

Making a graph takes up to a second; its hash and the places of its weights, which the keys of
everything later are made of, are a few lines. An export writes them to the cache folder, and a
forecast of the same architecture and profile reads them there.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converter.architecture import Architecture
from converter.cache import content_key
from converter.components import part
from converter.errors import InputError
from converter.files import read_json, write_json
from converter.folders import cache_folder
from converter.interface_profile import InterfaceProfile
from converter.progress import Progress, silent
from passes.weights import Place

if TYPE_CHECKING:
    import onnx_ir as ir  # takes half a second


@dataclass(frozen=True)
class GraphRecord:
    """The graph's SHA-256, its length in bytes, and where each of its weights will lie."""

    sha256: str
    nbytes: int
    places: Mapping[str, Place]

    @classmethod
    def of(cls, data: bytes, places: Mapping[str, Place]) -> "GraphRecord":
        """Describe the file `data`."""
        return cls(hashlib.sha256(data).hexdigest(), len(data), places)


def component_graph(
    component: str,
    profile: InterfaceProfile,
    architecture: Architecture,
    progress: Progress = silent,
) -> "tuple[ir.Model, str]":
    """The template behind the profile's ports, sizes symbolic; and the template's key."""
    from converter.template import load_template
    from passes import pipelines

    ports = profile.residual_ports(architecture)
    graph, key = load_template(component, architecture, residual_ports=ports, progress=progress)
    canonical = profile.canonical(component, architecture)
    inputs = {n: (p.name, p.dtype) for n, p in profile.inputs(component, canonical).items()}
    outputs = profile.outputs(component, canonical)
    pipelines.present(inputs, outputs, profile.fed(component, architecture)).run(graph)
    return graph, key


def graph_bytes(graph: "ir.Model") -> bytes:
    """The file of a graph: equal graphs make equal bytes."""
    import onnx_ir as ir

    data: bytes = ir.to_proto(graph).SerializeToString(deterministic=True)
    return data


def graph_record(
    component: str, profile: InterfaceProfile, architecture: Architecture, template_key: str
) -> GraphRecord:
    """The record of a component's graph, whose template must be there. Nothing is written."""
    found = _remembered(_path(component, profile, architecture, template_key))
    if found is None:
        from passes.weights import weight_places

        graph, _ = component_graph(component, profile, architecture)
        found = GraphRecord.of(graph_bytes(graph), weight_places(graph))
    return found


def remember_graph(
    record: GraphRecord,
    component: str,
    profile: InterfaceProfile,
    architecture: Architecture,
    template_key: str,
) -> None:
    """Write down what is known of a graph, unless it is remembered already."""
    path = _path(component, profile, architecture, template_key)
    if _remembered(path) != record:
        places = {name: asdict(place) for name, place in record.places.items()}
        write_json(path, {"sha256": record.sha256, "nbytes": record.nbytes, "places": places})


def _remembered(path: Path) -> GraphRecord | None:
    try:
        data = read_json(path, "the record of a graph")
        places = {
            name: Place(**{**place, "shape": tuple(place["shape"])})
            for name, place in data["places"].items()
        }
        return GraphRecord(data["sha256"], data["nbytes"], places)
    except (InputError, AttributeError, KeyError, TypeError):
        return None  # it is only there to save time


def _path(
    component: str, profile: InterfaceProfile, architecture: Architecture, template_key: str
) -> Path:
    described = part(architecture, component)
    made_from = {
        "template": template_key,
        "architecture": None if described is None else described.to_json(),
        "interface": profile.interface(component, architecture).to_json(),
        **{package: importlib.metadata.version(package) for package in ("sdconv", "onnx-ir")},
    }
    return cache_folder() / "graph-records" / f"{content_key(made_from)[:32]}.json"
