"""Skeleton + weights -> a .mnn and the file of its weights, one tensor at a time.

MNN's tools have no part in it. Where a file made of the same skeleton lies already, only weights
that have changed since are written.
"""

import hashlib
import shutil
from collections import defaultdict
from pathlib import Path

from converter.files import replacing, require_space, take, write_at, write_json
from converter.progress import Event, Progress
from converter.weights import WeightSource
from targets.base import Skeleton
from targets.contents import Contents
from targets.mnn.conversion import MODEL_FILE
from targets.mnn.model import WEIGHTS_SUFFIX, read_model
from targets.mnn.precisions import Precision
from targets.mnn.weight_map import PlacedWeight, WeightMap


def bind(
    skeleton: Skeleton,
    precision: Precision,
    weights: WeightSource,
    path: Path,
    progress: Progress,
) -> bool:
    """Write a model at `path` and its weights beside it; False where both lie there already."""
    described = path.with_name(path.name + ".json")
    stored = path.with_name(path.name + WEIGHTS_SUFFIX)
    # HQQ writes other values into the same format.
    contents = Contents.of([skeleton.key, *(["hqq"] if precision.hqq else [])], weights)
    before = Contents.read(stored, described)
    if before is not None and before.is_of(contents) and path.is_file():
        return False
    with replacing(path) as model, replacing(stored) as work:
        if skeleton.weights_key is None:
            alike = before is not None and before.skeletons == contents.skeletons
            kept = contents.unchanged(before if alike else None)
            _write(skeleton, precision, weights, model, (stored, work), kept, progress)
        else:
            shutil.copyfile(skeleton.path / MODEL_FILE, model)
            shutil.copyfile(skeleton.path / (MODEL_FILE + WEIGHTS_SUFFIX), work)
        _identify(model, f"{contents.skeletons} {contents.weights}")
        path.unlink(missing_ok=True)  # no model ever has another's weights beside it
    write_json(described, {"schema": 1, "contents": contents.to_json(stored)})
    return True


def _write(
    skeleton: Skeleton,
    precision: Precision,
    weights: WeightSource,
    model: Path,
    files: tuple[Path, Path],
    kept: frozenset[str],
    progress: Progress,
) -> None:
    """Fill both files; those of `kept` lie in the first of `files` already, which is taken."""
    weight_map = WeightMap.load(skeleton.path)
    stored, work = files
    if not kept or not take(stored, work):
        kept = frozenset()
        require_space(work.parent, weight_map.nbytes, f"writing {stored.name}")
    shutil.copyfile(skeleton.path / MODEL_FILE, model)
    by_source: dict[str, list[PlacedWeight]] = defaultdict(list)
    for placed in weight_map.weights:
        by_source[placed.source].append(placed)
    with model.open("r+b") as inside, work.open("r+b") as beside:
        beside.truncate(weight_map.nbytes)
        for constant in weight_map.constants:
            write_at(beside.fileno(), memoryview(constant.data), constant.offset)
        for done, (source, places) in enumerate(by_source.items()):
            progress(Event(f"bind {skeleton.job.component}", done / len(by_source)))
            todo = [p for p in places if p.inside or source not in kept]
            if not todo:
                continue
            values = weights.read(source)
            for placed in todo:
                file = inside if placed.inside else beside
                encoded = placed.encode(values, hqq=precision.hqq)
                write_at(file.fileno(), encoded.data, placed.offset)
            weights.forget(source)


def _identify(model: Path, made_from: str) -> None:
    """Give the model a UUID of its own: the converter's would be the same for all weights."""
    at = read_model(model).uuid
    if at.nbytes != 36:
        return
    digits = hashlib.sha256(made_from.encode()).hexdigest()
    uuid = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"
    with model.open("r+b") as file:
        write_at(file.fileno(), memoryview(uuid.encode()), at.offset)
