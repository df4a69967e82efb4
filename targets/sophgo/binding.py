"""Skeletons + weights -> one bmodel with a stage for each, where its consumer opens it.

The weights are streamed to where the compiler put the placeholders, sizes that keep them alike
share them, and the header's check codes are mended. The vendor's tools have no part in it. Where a
file made of the same skeletons lies already, only weights that have changed since are written; one
of other sizes gives what it holds of the weights to the new file, packed as they are.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from converter.cache import SKELETONS, Cache, content_key
from converter.errors import InputError
from converter.files import replacing, require_space, take, write_json
from converter.progress import Event, Progress
from converter.weights import WeightSource
from targets.base import Skeleton, ToolchainError
from targets.contents import Contents
from targets.sophgo.bmodel.combining import Source, plan
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.layout import Layout, WeightRegion, write_frame
from targets.sophgo.bmodel.reading import Bmodel, read_bmodel, stages
from targets.sophgo.bmodel.relocation import Located, plan_shared
from targets.sophgo.bmodel.schema import NetParameter
from targets.sophgo.compilation import BMODEL_FILE
from targets.sophgo.packing.regions import Held, copy_region, write_region
from targets.sophgo.packing.weight_map import PackedWeight, WeightMap, joined
from targets.sophgo.record import StageRecord


def bind(
    skeletons: Sequence[Skeleton],
    weights: WeightSource,
    path: Path,
    toolchain: str,
    progress: Progress,
) -> None:
    """Write a bmodel at `path`, and its description (a record of every skeleton) beside it.

    Nothing is written where the same file lies already.
    """
    ordered = _by_memory(skeletons)
    contents = Contents.of([s.key for s in ordered], weights)
    before = Contents.read(path, path.with_suffix(".json"))
    if before is None or not before.is_of(contents):
        _write(ordered, weights, path, before, contents, progress)
        _describe(skeletons, weights, contents, path, toolchain)


def stage_record(packed: Path, key: str) -> StageRecord:
    """The record that `bind` wrote beside a bmodel for the stage that is artifact `key`."""
    described = packed.with_suffix(".json")
    stages_ = json.loads(described.read_text())["stages"]
    found = next((stage for stage in stages_ if stage["key"] == key), None)
    if found is None:
        raise ToolchainError(f"{described}: no stage {key[:12]}: run the same compile again")
    return StageRecord.from_json(found)


def content_of(skeleton: Skeleton, weights: WeightSource) -> str:
    """Hash of what decides what a stage computes: its skeleton, its weights, the code that binds.

    Other stages of the same file do not: they leave its weights and instructions what they are, or
    move both together.
    """
    return content_key(
        {"skeleton": skeleton.key, "weights": weights.key, "binding": _code_fingerprint()}
    )


@cache
def _code_fingerprint() -> str:
    """Hash of this module's source and of that by which files are read, planned and filled."""
    here = Path(__file__)
    files = [here, *here.with_name("bmodel").glob("*.py"), *here.with_name("packing").glob("*.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


def _by_memory(skeletons: Sequence[Skeleton]) -> list[Skeleton]:
    """The stage that needs most memory while it runs first.

    The runtime (1.30.2) reserves what the first stage needs and points that stage's instructions
    there; when a later stage needs more, it reserves anew and leaves those instructions pointing
    at the old place, which is soon overwritten: the first stage then fails with "wrong gdma type".
    """

    def needs(skeleton: Skeleton) -> int:
        return StageRecord.load(skeleton.path).device_memory.runtime

    return sorted(skeletons, key=needs, reverse=True)


def _write(
    skeletons: Sequence[Skeleton],
    weights: WeightSource,
    path: Path,
    before: Contents | None,
    now: Contents,
    progress: Progress,
) -> None:
    """Write the file, with what lies at `path` of its weights if that is a file of `before`."""
    stages_ = [_Stage.of(skeleton.path) for skeleton in skeletons]
    layout = _layout(stages_)
    stage = f"bind {skeletons[0].job.component}"
    kept = now.unchanged(before)
    alike = before is not None and before.skeletons == now.skeletons
    with replacing(path) as work:
        if alike and kept and take(path, work):
            with work.open("r+b") as file:
                held = Held(file.fileno(), _places(layout, stages_, kept))
                _write_weights(layout, stages_, weights, file.fileno(), held, stage, progress)
            return
        require_space(work.parent, layout.size, f"writing {path.name}")
        write_frame(layout, work)
        with _opened(path, before, kept) as held, work.open("r+b") as file:
            _write_weights(layout, stages_, weights, file.fileno(), held, stage, progress)


def _places(
    layout: Layout, parts: Sequence["_Stage"], kept: frozenset[str]
) -> Mapping[PackedWeight, int]:
    """Where the weights of these names lie in a file of this layout."""
    return {
        replace(weight, offset=0): region.offset + weight.offset
        for region in layout.weights
        if parts[region.users[0]].weight_map is not None
        for weight in _map_of(region, parts).weights
        if weight.source in kept
    }


@contextmanager
def _opened(path: Path, before: Contents | None, kept: frozenset[str]) -> Iterator[Held]:
    """The file at `path` and what it holds of the `kept` weights, as far as that is known here.

    Its skeletons must be in the cache still, and what is planned of them its first bytes.
    """
    folders = [Cache(SKELETONS).entry(key) for key in before.skeletons] if before and kept else []
    if not folders or not all(folder.is_dir() for folder in folders):
        yield Held()
        return
    parts = [_Stage.of(folder) for folder in folders]
    layout = _layout(parts)
    with path.open("rb") as file:
        begins = layout.begins_like(file.read(len(layout.header)))
        yield Held(file.fileno(), _places(layout, parts, kept)) if begins else Held()


@dataclass(frozen=True)
class _Stage:
    """A skeleton's file, and where weights belong in it; None if it has its own."""

    bmodel: Bmodel
    weight_map: WeightMap | None

    @classmethod
    def of(cls, skeleton: Path) -> "_Stage":
        bmodel = read_bmodel(skeleton / BMODEL_FILE)
        return cls(bmodel, WeightMap.load(skeleton) if bmodel.lacks_weights else None)

    @property
    def table(self) -> NetParameter:
        """Its one stage as the file describes it."""
        ((_, stage),) = stages(self.bmodel.model)
        return stage

    def identity(self) -> str:
        """A name for the bytes of its weight region."""
        if self.weight_map is not None:
            return self.weight_map.identity
        return self.table.coeff_mem.check_code.hex() if self.table.coeff_mem is not None else ""

    def run(self, binary: Binary) -> WeightMap:
        """The map of a part of its region."""
        assert self.weight_map is not None, "asked of bound stages only"
        (region,) = self.bmodel.weights
        return self.weight_map.run(binary.start - region.start, binary.size)

    def names(self) -> dict[int, str]:
        """A name for the bytes at each location of its region."""
        memory = self.table.coeff_mem
        assert self.weight_map is not None
        assert memory is not None
        return {
            at.offset: self.weight_map.run(at.offset, at.size).identity for at in memory.location
        }


def _layout(parts: Sequence[_Stage]) -> Layout:
    """One file for all stages. Weights that are packed alike lie in it once, where that is known.

    Sizes whose regions differ in a few tensors share the rest, where their instructions can be
    pointed to where those tensors went.
    """
    identities = {part.identity() for part in parts}
    if len(identities) > 1 and all(part.weight_map is not None for part in parts):
        # Not on every chip, nor with every network: then each size keeps its own weights.
        with suppress(InputError):
            return plan_shared([Located(part.bmodel, part.names()) for part in parts])
    return plan([Source(part.bmodel, part.identity()) for part in parts])


def _write_weights(
    layout: Layout,
    parts: Sequence[_Stage],
    weights: WeightSource,
    handle: int,
    held: Held,
    stage: str,
    progress: Progress,
) -> None:
    """Fill the regions, and put their SHA-256 where the header has it."""
    total = sum(region.size for region in layout.weights)
    done = 0
    for region in layout.weights:

        def on_bytes(count: int, done: int = done) -> None:
            progress(Event(stage, (done + count) / total))

        if parts[region.users[0]].weight_map is None:
            (part,) = region.parts
            content = parts[part.source].bmodel.chunks_of(part.binary)
            digest = copy_region(content, handle, region.offset)
        else:
            weight_map = _map_of(region, parts)
            digest = write_region(weight_map, weights, handle, region.offset, held, on_bytes)
        for place in region.check_codes:
            os.pwrite(handle, digest, place)
        done += region.size


def _map_of(region: WeightRegion, parts: Sequence[_Stage]) -> WeightMap:
    """What lies where in a region that is bound."""
    runs = [(part.offset, parts[part.source].run(part.binary)) for part in region.parts]
    return joined(region.size, runs)


def _describe(
    skeletons: Sequence[Skeleton],
    weights: WeightSource,
    contents: Contents,
    path: Path,
    toolchain: str,
) -> None:
    described: dict[str, Any] = {
        "schema": 2,
        "toolchain": toolchain,
        "stages": [
            {"key": s.artifact_key(weights), **StageRecord.load(s.path).to_json()}
            for s in skeletons
        ],
        "contents": contents.to_json(path),
    }
    write_json(path.with_suffix(".json"), described)
