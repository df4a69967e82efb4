"""What one run of a component costs on a Sophgo chip by the compiler's cycle model, and on what.

    python -m benchmarks.sophgo_speed unet --size 512x512

Needs tpu-mlir and no checkpoint: the shipped template is compiled with placeholders and cached. The
ranges of INT8, on which latency does not depend, are those of one run on noise.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.families.published import SD15, SDXL
from converter.profiles import get_profile
from converter.sizes import parse_sizes
from sdconv.console import progress_bar
from targets.base import CompileJob, Estimate
from targets.calibration import CalibrationData
from targets.sophgo.record import StageRecord
from targets.sophgo.shipping import template_job
from targets.sophgo.target import SophgoTarget

FAMILIES = {"sd15": (SD15, "sd-lcm-tpu"), "sdxl": (SDXL, "diffusers")}
"""Architecture, and the profile that is measured unless another is asked for."""


def main() -> None:
    """Compile one component, or find it compiled, and print two Markdown tables."""
    parser = argparse.ArgumentParser(description="Predict a component's latency on a chip.")
    parser.add_argument("component")
    parser.add_argument("--family", choices=FAMILIES, default="sd15")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--profile")
    parser.add_argument("--precision")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--chip", default="bm1684x")
    options = parser.parse_args()
    target = SophgoTarget(options.chip)
    with tempfile.TemporaryDirectory() as folder:
        job = _job(options, target, Path(folder))
        if target.needs_calibration(job.precision, None):
            job = replace(job, calibration=_noise(job, Path(folder) / "noise"))
        with progress_bar() as progress:
            made = target.skeleton(job, progress)
    record = StageRecord.load(made.path).with_timeline(made.path)
    assert record.estimate is not None
    sys.stdout.write(f"{job.label}, {options.chip}: {record.cycle_model.runtime_ms:.2f} ms\n\n")
    sys.stdout.writelines(f"{row}\n" for row in rows(record.estimate))


def _job(options: argparse.Namespace, target: SophgoTarget, folder: Path) -> CompileJob:
    """The job that compiling an exported bundle would be."""
    architecture, profile = FAMILIES[options.family]
    (size,) = parse_sizes(options.size)
    job = template_job(
        target,
        architecture,
        get_profile(options.profile or profile),
        options.component,
        size,
        folder,
    )
    return replace(job, precision=options.precision or job.precision, effort=options.effort)


def _noise(job: CompileJob, folder: Path) -> CalibrationData:
    """One sample that no network was ever given."""
    rng = np.random.default_rng(0)
    types = {value.name: value.dtype for value in ir.load(job.graph).graph.inputs}
    sample = {
        name: rng.standard_normal(shape).astype(types[name].numpy())  # type: ignore[union-attr]
        for name, shape in job.input_shapes
    }
    folder.mkdir()
    np.savez(folder / "0000.npz", allow_pickle=False, **sample)
    return CalibrationData.of(folder)


def rows(estimate: Estimate) -> Iterator[str]:
    """The tables: what the engines do together, then each kind of layer's share."""
    engines = estimate.engines
    yield "| computing, ms | moving data only, ms | neither, ms |"
    yield "|---|---|---|"
    computing = engines.compute_ms + engines.both_ms
    yield f"| {computing:.2f} | {engines.dma_ms:.2f} | {engines.idle_ms:.2f} |"
    yield ""
    yield "| kind of layer | computing, ms | moving data only, ms |"
    yield "|---|---|---|"
    for layer in estimate.layers:
        yield f"| {layer.kind} | {layer.compute_ms:.2f} | {layer.dma_ms:.2f} |"


if __name__ == "__main__":
    main()
