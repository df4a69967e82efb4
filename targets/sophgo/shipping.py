"""Make the skeletons that ship with the program: ``python -m targets.sophgo.shipping``.

Needs tpu-mlir, 12 GB of memory and no checkpoint. What is in the cache is not compiled again;
archives that nothing asks for any more are removed.
"""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from converter.architecture import CONTROLNET, Architecture
from converter.cache import ENTRY_FILE
from converter.components import complete
from converter.families.controlnet import copied_part
from converter.families.published import SD15, SD15_UNET
from converter.files import write_json
from converter.graph_record import component_graph, graph_bytes
from converter.interface_profile import InterfaceProfile
from converter.profiles import get_profile
from converter.progress import Event, Progress
from converter.sizes import Size, parse_sizes
from targets.at_once import each
from targets.base import CompileJob, Target
from targets.skeletons import export_skeletons
from targets.sophgo.bmodel.cutting import cut_kernel
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.compilation import BMODEL_FILE, unbound
from targets.sophgo.graphs import passes_hash, static_graph
from targets.sophgo.packing.weight_map import WEIGHT_MAP_FILE
from targets.sophgo.record import RECORD_FILE
from targets.sophgo.shipped import (
    FOLDER,
    INDEX_FILE,
    Index,
    archive_name,
    graph_key,
)
from targets.sophgo.target import SophgoTarget

CHIP = "bm1684x"
PROFILE = "sd-lcm-tpu"
SIZES = parse_sizes("512x512,640x960,960x640,704x896,896x704,576x1024,1024x576")
"""Deployed by the hosts of that profile."""
AT_ONCE = 2
"""Compilations at a time; the largest takes 6 GB."""
DESCRIBED = (
    f"SD1.5 at {', '.join(map(str, SIZES))}, exported with profile {PROFILE} and batch 1, in the "
    "precisions that are taken when none are named"
)


def template_job(
    target: Target,
    architecture: Architecture,
    profile: InterfaceProfile,
    component: str,
    size: Size,
    folder: Path,
) -> CompileJob:
    """The job that compiling an exported bundle would be; its graph is written into `folder`."""
    data = graph_bytes(component_graph(component, profile, architecture)[0])
    path = folder / f"{component}.onnx"
    path.write_bytes(data)
    interface = profile.interface(component, architecture)
    at = size if interface.has_size else None
    return CompileJob(
        component=component,
        graph=path,
        graph_sha256=hashlib.sha256(data).hexdigest(),
        input_shapes=tuple(interface.input_shapes(1, at).items()),
        size=at,
        batch=1,
        precision=target.default_precision(component),
    )


def shipped_jobs(target: Target, folder: Path) -> Iterator[CompileJob]:
    """Every component at every size, in the precision that the target has for it."""
    profile = get_profile(PROFILE)
    with_controlnet = replace(SD15, controlnets=(copied_part(SD15_UNET),))
    jobs = (
        template_job(target, architecture, profile, component, size, folder)
        for size in SIZES
        for architecture, components in ((SD15, complete(SD15)), (with_controlnet, [CONTROLNET]))
        for component in components
    )
    yield from dict.fromkeys(jobs)  # a text encoder has no size


def ship(
    target: SophgoTarget,
    jobs: Sequence[CompileJob],
    described: str,
    folder: Path,
    progress: Progress,
) -> None:
    """Compile what is missing; make `folder` hold the archives of these jobs and their index."""
    folder.mkdir(exist_ok=True)
    graphs, kernel, made = {}, ("", ""), {INDEX_FILE}
    compiled = each([partial(target.skeleton, job, progress) for job in jobs], AT_ONCE)
    for job, entry in zip(jobs, compiled, strict=True):
        if reason := unbound(entry.path):
            raise ValueError(f"{job.label}: takes no other weights: {reason}")
        graphs[graph_key(job)] = static_graph(job).sha256
        archive = folder / archive_name(entry.key)
        kernel = _pack(entry.path, archive)
        made.add(archive.name)
        progress(Event("ship", 1.0, f"{job.label}: {archive.stat().st_size / 1e3:.0f} kB"))
    index = Index(target.name, described, kernel, passes_hash(), dict(sorted(graphs.items())))
    write_json(folder / INDEX_FILE, asdict(index))
    for file in folder.iterdir():
        if file.name not in made:
            file.unlink()


def _pack(entry: Path, archive: Path) -> tuple[str, str]:
    """Write what a skeleton needs, less the kernel module; return its file name and SHA-256."""
    bmodel = read_bmodel(entry / BMODEL_FILE)
    module = bmodel.model.kernel_module
    assert module is not None
    assert module.binary is not None
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch) / entry.name
        bare.mkdir()
        for name in (ENTRY_FILE, RECORD_FILE, WEIGHT_MAP_FILE):
            shutil.copyfile(entry / name, bare / name)
        cut_kernel(bmodel, bare / BMODEL_FILE)
        export_skeletons([bare], archive)
    return module.file_name, hashlib.sha256(bmodel.bytes_of(module.binary)).hexdigest()


def _tell(event: Event) -> None:
    if event.note:
        sys.stdout.write(f"{event.note}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    chip = SophgoTarget(CHIP)
    with tempfile.TemporaryDirectory() as graphs_:
        ship(chip, [*shipped_jobs(chip, Path(graphs_))], DESCRIBED, FOLDER, _tell)
    sys.stdout.write(f"{sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6:.2f} MB\n")
