"""Skeletons + weights -> one bmodel with a stage for each, under the consumer's file name.

The weights are streamed to where the compiler put the placeholders, sizes that keep them alike
share them, and the header's check codes are mended. The vendor's tools have no part in it. Where a
file made of the same skeletons lies already, only weights that have changed since are written.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converter.files import replacing, require_space, take, write_json
from converter.progress import Event, Progress
from converter.weights import WeightSource
from targets.base import Skeleton, ToolchainError
from targets.sophgo.bmodel.combining import Source, plan
from targets.sophgo.bmodel.layout import Layout, write_frame
from targets.sophgo.bmodel.reading import read_bmodel, stages
from targets.sophgo.compilation import BMODEL_FILE
from targets.sophgo.record import StageRecord
from targets.sophgo.regions import copy_region, write_region
from targets.sophgo.weight_map import WeightMap

FILE_STEMS = {
    "text_encoder": "sdv15_text",
    "unet": "sdv15_unet_multisize",
    "vae_decoder": "sdv15_vd_multisize",
    "vae_encoder": "sdv15_ve_multisize",
    "controlnet": "sdv15_cn_multisize",
}
"""The names that the existing consumers of these files open."""


def file_stem(component: str) -> str:
    """The file name of a component, without its extension."""
    return FILE_STEMS.get(component, f"{component}_multisize")


@dataclass(frozen=True)
class Contents:
    """What a bmodel was made of; `bytes` and `mtime_ns` tell whether it is that file still."""

    skeletons: tuple[str, ...]
    weights: str
    tensor_keys: dict[str, str]
    bytes: int = 0
    mtime_ns: int = 0


def bind(
    skeletons: Sequence[Skeleton],
    weights: WeightSource,
    folder: Path,
    toolchain: str,
    progress: Progress,
) -> Path:
    """Write `<stem>.bmodel` and `<stem>.json` (one record per skeleton) into `folder`.

    Returns the bmodel's path. Nothing is written where the same file lies already.
    """
    component = skeletons[0].job.component
    path = folder / f"{file_stem(component)}.bmodel"
    ordered = _by_memory(skeletons)
    contents = Contents(tuple(s.key for s in ordered), weights.key, dict(weights.tensor_keys))
    before = _contents(path)
    if before is None or (before.skeletons, before.weights) != (
        contents.skeletons,
        contents.weights,
    ):
        _write(ordered, weights, path, _unchanged(before, contents), progress)
    _describe(skeletons, weights, contents, path, toolchain)
    return path


def artifact_key(skeleton: Skeleton, weights: WeightSource) -> str:
    """Content hash of what a stage of the file was made from."""
    return f"{skeleton.key}:{weights.key}"


def stage_record(packed: Path, key: str) -> StageRecord:
    """The record that `bind` wrote beside a bmodel for the stage that is artifact `key`."""
    described = packed.with_suffix(".json")
    stages_ = json.loads(described.read_text())["stages"]
    found = next((stage for stage in stages_ if stage["key"] == key), None)
    if found is None:
        raise ToolchainError(f"{described}: no stage {key[:12]}: run the same compile again")
    return StageRecord.from_json(found)


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
    kept: frozenset[str],
    progress: Progress,
) -> None:
    """Write the file, or where `kept` names weights that lie in it already, the others of it."""
    sources = [_source(skeleton, weights) for skeleton in skeletons]
    layout = plan(sources)
    stage = f"bind {skeletons[0].job.component}"
    with replacing(path) as work:
        if not kept or not take(path, work):
            kept = frozenset()
            require_space(work.parent, layout.size, f"writing {path.name}")
            write_frame(layout, work)
        with work.open("r+b") as file:
            _write_weights(
                layout, sources, skeletons, weights, file.fileno(), kept, stage, progress
            )


def _write_weights(
    layout: Layout,
    sources: Sequence[Source],
    skeletons: Sequence[Skeleton],
    weights: WeightSource,
    handle: int,
    kept: frozenset[str],
    stage: str,
    progress: Progress,
) -> None:
    total = sum(region.size for region in layout.weights)
    done = 0
    for region in layout.weights:
        user = region.users[0]

        def on_bytes(count: int, done: int = done) -> None:
            progress(Event(stage, (done + count) / total))

        if skeletons[user].weights_key is None:
            weight_map = WeightMap.load(skeletons[user].path)
            digest = write_region(weight_map, weights, handle, region.offset, kept, on_bytes)
        else:
            (part,) = region.parts
            digest = copy_region(sources[user].bmodel.chunks_of(part.binary), handle, region.offset)
        for place in region.check_codes:
            os.pwrite(handle, digest, place)
        done += region.size


def _source(skeleton: Skeleton, weights: WeightSource) -> Source:
    """A skeleton, and a name for the bytes that its weight region will hold."""
    bmodel = read_bmodel(skeleton.path / BMODEL_FILE)
    if skeleton.weights_key is None:
        return Source(bmodel, f"{WeightMap.load(skeleton.path).identity} of {weights.key}")
    ((_, stage),) = stages(bmodel.model)
    code = stage.coeff_mem.check_code.hex() if stage.coeff_mem is not None else ""
    return Source(bmodel, code)


def _unchanged(before: Contents | None, now: Contents) -> frozenset[str]:
    """The weights that a file made of the same skeletons holds already."""
    if before is None or before.skeletons != now.skeletons:
        return frozenset()
    old = before.tensor_keys
    return frozenset(name for name, key in now.tensor_keys.items() if old.get(name) == key)


def _contents(path: Path) -> Contents | None:
    """What `path` is made of, if it is the file that was described beside it."""
    try:
        stat = path.stat()
        described = json.loads(path.with_suffix(".json").read_text())["contents"]
        found = Contents(**{**described, "skeletons": tuple(described["skeletons"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none there, or by another version: it is written anew
    return found if (found.bytes, found.mtime_ns) == (stat.st_size, stat.st_mtime_ns) else None


def _describe(
    skeletons: Sequence[Skeleton],
    weights: WeightSource,
    contents: Contents,
    path: Path,
    toolchain: str,
) -> None:
    stat = path.stat()
    described: dict[str, Any] = {
        "schema": 2,
        "toolchain": toolchain,
        "stages": [
            {"key": artifact_key(s, weights), **StageRecord.load(s.path).to_json()}
            for s in skeletons
        ],
        "contents": {**asdict(contents), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns},
    }
    write_json(path.with_suffix(".json"), described)
