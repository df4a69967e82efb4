"""A bundle: one weightless-made ONNX graph per component, its weights beside it, `bundle.json`.

    out/bundle.json
    out/unet/model.onnx          dynamic batch, height and width; weights as external data
    out/unet/model.onnx.data     every weight at the offset its initializer names

`bundle.json` (schema 1) holds family, architecture, profile, batch, sources with their hashes,
adapters with their ledgers, component records with the norms of what adapters changed, the command
that made it and the request as a recipe has it, versions, and where there are any, embeddings with
their token ids.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.adapters.merge import Changes
from converter.errors import InputError
from converter.files import let_go, read_json, size_of, write_json
from converter.interface import Interface
from converter.weights import Array, TensorSpec

BUNDLE_FILE = "bundle.json"
GRAPH_FILE = "model.onnx"


@dataclass(frozen=True)
class BundleComponent:
    """One exported component. Paths are relative to the bundle's folder."""

    name: str
    graph: str
    weights: str
    interface: Interface
    graph_sha256: str
    weights_key: str
    weights_bytes: int
    parameters: int
    template_key: str
    linked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Files of the user's that the graph reads, by their name here: `path` there, `bytes`,
    `mtime_ns`. They are hard links: moving or deleting the file there changes nothing here."""
    tensor_keys: Mapping[str, str] = field(default_factory=dict, compare=False)
    """What the bytes of each tensor depend on, hashed: what another export need not write."""
    weights_mtime_ns: int = field(default=0, compare=False)
    """When the weights were written: a file changed since is not what this record says."""
    changes: Changes = field(default_factory=dict, compare=False)
    """What each adapter changed; known once the weights are written."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**self.__dict__, "interface": self.interface.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BundleComponent":
        """Read what `to_json` wrote."""
        return cls(**{**data, "interface": Interface.from_json(data["interface"])})


@dataclass(frozen=True)
class Bundle:
    """An exported checkpoint on disk."""

    folder: Path
    family: str
    architecture: Mapping[str, Any]
    profile: str
    batch: int
    prediction_type: str
    components: Mapping[str, BundleComponent]
    sources: Sequence[Mapping[str, Any]] = ()
    adapters: Sequence[Mapping[str, Any]] = ()
    sampling: Mapping[str, Any] | None = None
    """How an LCM wants pictures drawn (scheduler, steps, guidance, because), if it is one."""
    command: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    zero_terminal_snr: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for (`converter.export_record`); bundles of earlier versions have none."""
    embeddings: Sequence[Mapping[str, Any]] = ()
    """Names that prompts may hold, and the token ids that each stands for."""

    @property
    def words(self) -> Mapping[str, Sequence[int]]:
        """Each embedding's name -> the token ids that take its place in a prompt."""
        return {embedding["name"]: embedding["ids"] for embedding in self.embeddings}

    def save(self) -> None:
        """Write `bundle.json`, atomically."""
        record = {
            "schema": 1,
            "complete": self.complete,
            "family": self.family,
            "profile": self.profile,
            "batch": self.batch,
            "prediction_type": self.prediction_type,
            "zero_terminal_snr": self.zero_terminal_snr,
            "architecture": self.architecture,
            "components": {name: c.to_json() for name, c in self.components.items()},
            "sources": list(self.sources),
            "adapters": list(self.adapters),
            "sampling": self.sampling,
            "command": list(self.command),
            "recipe": self.recipe,
            "versions": self.versions,
        }
        if self.embeddings:
            record["embeddings"] = list(self.embeddings)
        write_json(self.folder / BUNDLE_FILE, record)

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read a bundle, complete or not; raises InputError when it is not one."""
        data = read_json(folder / BUNDLE_FILE, "a bundle made by 'sdconv export'")
        if data.get("schema") != 1:
            raise InputError(
                f"{folder / BUNDLE_FILE}: schema {data.get('schema')!r} is not known here: "
                "export again with this version"
            )
        data.pop("schema")
        try:
            records = data.pop("components")
            components = {n: BundleComponent.from_json(c) for n, c in records.items()}
            return cls(folder=folder, components=components, **data)
        except (AttributeError, KeyError, TypeError) as e:
            raise InputError(
                f"{folder / BUNDLE_FILE}: damaged, or of another version ({e}): export again"
            ) from e

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle and check that it is whole; raises InputError with what to do."""
        bundle = cls.read(folder)
        if not bundle.complete:
            raise InputError(f"{folder}: the export was interrupted: run the same export again")
        for component in bundle.components.values():
            weights = folder / component.weights
            found = size_of(weights)
            _check_linked(folder, component)
            if found != component.weights_bytes or not (folder / component.graph).is_file():
                raise InputError(
                    f"{weights}: {component.weights_bytes} bytes expected beside "
                    f"{component.graph}, found {found}: export again"
                )
        return bundle

    def weights(self, component: str) -> "BundleWeights":
        """The weights of one component."""
        return BundleWeights(self.folder, self.components[component])


def _check_linked(folder: Path, component: BundleComponent) -> None:
    """Raise InputError when a linked file is gone or was written to."""
    for name, record in component.linked.items():
        path = folder / component.name / name
        if not path.is_file():
            raise InputError(f"{path}: the link to {record['path']} is gone: export again")
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) != (record["bytes"], record["mtime_ns"]):
            raise InputError(
                f"{record['path']}: changed since {folder} was linked to it: export again"
            )


class BundleWeights:
    """A `WeightSource` over a bundle's external data: memory-mapped, nothing read before asked.

    Linked tensors are widened and transposed as they are read, as the graph does.
    """

    def __init__(self, folder: Path, component: BundleComponent) -> None:
        import onnx_ir as ir  # takes 0.1 s

        from passes.linked_weights import own_places, unlink_weights
        from passes.weights import WEIGHTS_FILE, weight_places

        graph = folder / component.graph
        model = ir.load(graph)
        self.key = component.weights_key
        self.tensor_keys = component.tensor_keys
        self._folder, self._file = graph.parent, WEIGHTS_FILE
        self._own = own_places(model)
        self._links = unlink_weights(model)
        self._places = weight_places(model)
        self._maps: dict[str, mmap.mmap] = {}
        self.file: Path | None = None  # that of linked ones is made at need
        if not self._links:
            self.file = (folder / component.weights).absolute()

    def names(self) -> Sequence[str]:
        """Every tensor's name."""
        return list(self._places)

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype of one tensor."""
        place = self._places[name]
        return TensorSpec(place.shape, place.dtype)

    def read(self, name: str) -> Array:
        """One tensor: a read-only view of the file, unless it is linked and not float32."""
        place, link = self._places[name], self._links.get(name)
        if link is None:
            own = self._own[name]
            return self._view(self._file, own.dtype, own.offset, place.shape)
        shape = place.shape[::-1] if link.transposed else place.shape
        stored = self._view(link.location, link.dtype, link.offset, shape)
        turned = stored.T if link.transposed else stored
        return np.ascontiguousarray(turned).astype(place.dtype, copy=False)

    def forget(self, name: str) -> None:
        """Let go of the mapped pages of one tensor; see `WeightSource.forget`."""
        link = self._links.get(name)
        if link is None:
            own = self._own[name]
            file, offset, nbytes = self._file, own.offset, own.nbytes
        else:
            count = int(np.prod(self._places[name].shape, dtype=np.int64))
            file, offset, nbytes = link.location, link.offset, count * np.dtype(link.dtype).itemsize
        mapped = self._maps.get(file)
        if mapped is not None and nbytes:
            let_go(mapped, offset, offset + nbytes)

    def blocks(self, name: str) -> Iterator[Array]:
        """The whole tensor at once."""
        yield self.read(name)

    def _view(self, file: str, dtype: str, offset: int, shape: Sequence[int]) -> Array:
        if file not in self._maps:
            with (self._folder / file).open("rb") as opened:
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(self._maps[file], np.dtype(dtype), count, offset)
        return flat.reshape(shape)
