"""Compile full-size components for Adreno from their templates, without any weights.

    python -m benchmarks.adreno COMPONENT [--family sdxl --size 1024x1024 --target adreno-clml]

Prints a row for `benchmarks/adreno.md`, and which operators run where. A skeleton in the
cache is made again only if it is deleted: set SDCONV_HOME to an empty folder with the toolchains.
What MNN computes on a phone's host is run here, with weights of zeros: that takes no other time.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import psutil

from converter.architecture import Architecture
from converter.families.published import SD15, SDXL
from converter.files import sha256_of
from converter.graph_record import component_graph
from converter.profiles import get_profile
from converter.progress import silent
from converter.sizes import Size
from sdconv.console import out
from targets.base import CompileJob
from targets.mnn.conversion import MODEL_FILE
from targets.mnn.weight_map import WeightMap
from targets.tvm.binding import place
from targets.tvm.host_operator import MODEL, open_part, weights_file
from targets.tvm.program import PROGRAM_FILE, HostOperator, Program
from targets.tvm.target import TvmTarget
from validate.report.terminal import print_placement

FAMILIES = {"sd15": SD15, "sdxl": SDXL}


def job_of(
    component: str, architecture: Architecture, size: Size, precision: str, folder: Path
) -> CompileJob:
    """The job of a component, its graph written into `folder` as an export would."""
    profile = get_profile("diffusers")
    graph, _ = component_graph(component, profile, architecture)
    path = folder / "model.onnx"
    ir.save(graph, path)
    ports = profile.interface(component, architecture)
    mine = size if ports.has_size else None
    shapes = tuple(ports.input_shapes(1, mine).items())
    return CompileJob(component, path, sha256_of(path), shapes, mine, 1, precision)


def run_part(skeleton: Path, host: HostOperator) -> dict[str, float]:
    """MNN's second run: processor seconds, and what its process holds more than with no inputs."""
    given = np.zeros(host.takes.shape, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / MODEL
        shutil.copyfile(skeleton / MODEL_FILE, model)
        weights_file(model).write_bytes(bytes(WeightMap.load(skeleton).nbytes))
        with open_part(model) as runner:
            (process,) = psutil.Process().children()
            loaded = process.memory_info().rss
            runner.infer({host.takes.name: given})
            before = process.cpu_times()
            runner.infer({host.takes.name: given})
            after = process.cpu_times()
            spent = after.user + after.system - before.user - before.system
            held = process.memory_info().rss - loaded
    return {
        "mnn_gflop": round(host.operations / 1e9, 1),
        "mnn_processor_s": round(spent, 1),
        "mnn_mb": round(held / 1e6),
        "mnn_mb_planned": round(host.memory / 1e6),
    }


def main() -> None:
    """Compile one component and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("component")
    parser.add_argument("--family", choices=FAMILIES, default="sd15")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--target", default="adreno-clml")
    parser.add_argument("--precision", default="f16")
    given = parser.parse_args()
    target = TvmTarget(given.target)
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(given.component, FAMILIES[given.family], Size.parse(given.size),
                     given.precision, Path(folder))  # fmt: skip
        start = time.monotonic()
        skeleton = target.compile(job, None, silent)  # type: ignore[arg-type]
        wall = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = Program.load(skeleton.path / PROGRAM_FILE)
    parameters = {p.name: p for p in (*program.parameters, *program.constants)}
    row = {
        "what": f"{given.family} {job.label} {given.target}",
        "reused": skeleton.reused,
        "wall_s": round(wall, 1),
        "processor_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss / 1e6, 2),
        "gflop": round(program.operations / 1e9, 1),
        "parameters_gb": round(sum(p.nbytes for p in place(parameters).values()) / 1e9, 2),
        "tensors_mb": round((program.activations + program.pool) / 1e6),
        "files_mb": {
            f.name: round(f.stat().st_size / 1e6, 2) for f in sorted(skeleton.path.iterdir())
        },
    }
    if program.host is not None:
        row |= run_part(skeleton.path, program.host)
    out.print(json.dumps(row), highlight=False, markup=False, soft_wrap=True)
    placement = target.placement(skeleton)
    if placement is not None:
        print_placement(str(row["what"]), placement, out)


if __name__ == "__main__":
    main()
