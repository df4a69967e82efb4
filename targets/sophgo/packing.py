"""Several compiled sizes -> one bmodel with a stage for each, under the consumer's file name."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from converter.cache import Cache
from converter.files import link_or_copy, sha256_of, write_json
from targets.base import Skeleton, ToolchainError
from targets.processes import ChildFailedError, run_logged
from targets.sophgo.compilation import BMODEL_FILE
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir

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


def pack(toolchain: TpuMlir, skeletons: Sequence[Skeleton], folder: Path) -> Path:
    """Write `<stem>.bmodel` and `<stem>.json` (one record per skeleton) into `folder`.

    Returns the bmodel's path. Nothing is written where the same file lies already.
    """
    stem = file_stem(skeletons[0].job.component)
    records = [StageRecord.load(skeleton.path) for skeleton in skeletons]
    packed = folder / f"{stem}.bmodel"
    _place(_combined(toolchain, skeletons, records), packed)
    stages = [
        {"key": skeleton.key, **record.to_json()}
        for skeleton, record in zip(skeletons, records, strict=True)
    ]
    described = {
        "schema": 1,
        "toolchain": f"{toolchain.name} {toolchain.version}",
        "stages": stages,
    }
    write_json(folder / f"{stem}.json", described)
    return packed


def stage_record(packed: Path, key: str) -> StageRecord:
    """The record that `pack` wrote beside a bmodel for the stage made from skeleton `key`."""
    described = packed.with_suffix(".json")
    stages = json.loads(described.read_text())["stages"]
    found = next((stage for stage in stages if stage["key"] == key), None)
    if found is None:
        raise ToolchainError(f"{described}: no stage {key[:12]}: run the same compile again")
    return StageRecord.from_json(found)


def _combined(
    toolchain: TpuMlir, skeletons: Sequence[Skeleton], records: Sequence[StageRecord]
) -> Path:
    """One file with all stages, from the cache if these skeletons were combined before.

    The stage that needs most memory while it runs must come first. The runtime (1.30.2) reserves
    what the first stage needs and points that stage's instructions there; when a later stage
    needs more, it reserves anew and leaves those instructions pointing at the old place, which is
    soon overwritten: the first stage then fails with "wrong gdma type".
    """
    order = sorted(
        range(len(skeletons)), key=lambda i: records[i].device_memory.runtime, reverse=True
    )
    sources = [skeletons[i].path / BMODEL_FILE for i in order]
    if len(sources) == 1:
        return sources[0]

    def combine(work: Path) -> None:
        output = work / BMODEL_FILE
        argv = [str(toolchain.program("model_tool")), "--combine", *map(str, sources)]
        try:
            with toolchain.alone():
                run_logged([*argv, "-o", str(output)], work / "combine.log", env=toolchain.env())
        except ChildFailedError as e:
            raise ToolchainError(f"combining the sizes of {component} failed: {e.line}") from e
        found = _count_stages(toolchain, output)
        if found != len(sources):
            raise ToolchainError(
                f"combining {component} gave {found} stages where {len(sources)} were expected: "
                "are two of them of one size?"
            )

    component = skeletons[0].job.component
    inputs = {
        "stages": " ".join(skeletons[i].key for i in order),
        "toolchain": toolchain.version,
    }
    made = Cache("combined").make(f"{component} in {len(sources)} sizes", inputs, combine)
    return made.path / BMODEL_FILE


def _count_stages(toolchain: TpuMlir, bmodel: Path) -> int:
    return len(re.findall(r"^stage \d+", toolchain.describe(bmodel), re.MULTILINE))


def _place(source: Path, path: Path) -> None:
    """Link or copy, unless the same bytes lie there: copying gigabytes again takes a while."""
    if path.is_file():
        if path.samefile(source):
            return
        if path.stat().st_size == source.stat().st_size and sha256_of(path) == sha256_of(source):
            return
    link_or_copy(source, path)
