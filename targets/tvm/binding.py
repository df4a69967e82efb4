"""Skeletons + weights -> libraries and the one file of parameters that they share.

The parameters' index is TVM's own (`tvm.contrib.tvmjs`, "tensor cache"), so its runtime reads them
on any device. Where a file of the same layout lies already, only what has changed is written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.cache import content_key
from converter.files import read_json, require_space, write_json
from converter.progress import Progress
from converter.stream import file_size, write_weights
from converter.weights import WeightSource
from passes.weights import Place
from targets.contents import Contents
from targets.tvm.parameters import Parameter, ParameterStream

DATA_FILE, INDEX_FILE = "parameters.bin", "tensor-cache.json"

ALIGNMENT = 256
"""Bytes. TVM's kernels want 64."""


def write_parameters(
    parameters: Mapping[str, Parameter],
    weights: WeightSource,
    folder: Path,
    progress: Progress,
    stage: str,
) -> bool:
    """Write parameters and their index into `folder`; False where they lie there already."""
    places = place(parameters)
    layout = content_key({name: [p.shape, p.dtype, p.offset] for name, p in places.items()})
    contents = Contents.of([layout], weights)
    path, index = folder / DATA_FILE, folder / INDEX_FILE
    before = Contents.read(path, index)
    if before is not None and before.is_of(contents):
        return False
    kept = contents.unchanged(before)
    changed = [name for name, p in parameters.items() if p.source not in kept] if kept else None
    if changed is None:
        require_space(folder, file_size(places), f"writing {path.name}")
    write_weights(ParameterStream(parameters, weights), places, path, progress, stage, changed)
    write_json(index, {**_index(places, file_size(places)), "contents": contents.to_json(path)})
    return True


def place(parameters: Mapping[str, Parameter]) -> dict[str, Place]:
    """A place in the file for every parameter, by name."""
    places, offset = {}, 0
    for name, parameter in sorted(parameters.items()):
        dtype = np.dtype(parameter.dtype)
        count = int(np.prod(parameter.shape, dtype=np.int64))
        places[name] = Place(parameter.shape, parameter.dtype, offset, count * dtype.itemsize)
        offset += -(-places[name].nbytes // ALIGNMENT) * ALIGNMENT
    return places


def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a written index, by the parameter's name. Raises InputError without one."""
    data = read_json(folder / INDEX_FILE, "the index of a TVM program's parameters")
    return {record["name"]: record for shard in data["records"] for record in shard["records"]}


def _index(places: Mapping[str, Place], nbytes: int) -> dict[str, Any]:
    records: Sequence[dict[str, Any]] = [
        {
            "name": name,
            "shape": list(p.shape),
            "dtype": p.dtype,
            "format": "raw",
            "nbytes": p.nbytes,
            "byteOffset": p.offset,
        }
        for name, p in places.items()
    ]
    shard = {"dataPath": DATA_FILE, "format": "raw-shard", "nbytes": nbytes, "records": records}
    return {"metadata": {"ParamSize": len(places)}, "records": [shard]}
