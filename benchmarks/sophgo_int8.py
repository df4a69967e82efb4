"""How exact the miniature's UNet in int8-mixed is in the compiler's interpreter, and its pictures.

    python -m benchmarks.sophgo_int8 BUNDLE CALIBRATION --pictures 24 --keep 'up_blocks.3.resnets'

draws scenes with the lowered UNet in 4 steps, all else in torch, and prints how far that is from
torch alone. `--keep` leaves more in F16: what multiplies by a weight of such a path, a regular
expression. How bundle and calibration are made: `benchmarks/sophgo_int8.md`.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from converter.bundle import Bundle
from converter.progress import silent
from converter.weights import Array
from examples.mini.pictures import DAY
from examples.mini.score import QUICK, SQUARE, accuracy, draw, fixed_scenes
from runtime.staging import open_reference
from targets.base import CompileJob, Runner
from targets.calibration import find_data
from targets.compile import CompileRequest, jobs_of
from targets.driver import Driver, ordered_inputs
from targets.registry import get_target
from targets.sophgo import mixed
from targets.sophgo.chips import get_chip
from targets.sophgo.compilation import lower_graph
from targets.sophgo.graphs import StaticGraph, static_graph
from targets.sophgo.interpreter import DRIVER
from targets.sophgo.toolchain import TpuMlir
from targets.sophgo.top_graph import TopGraph
from validate.metrics import measure
from validate.references import open_torch_reference

CHIP = "bm1684x"


class Lowered(Runner):
    """The UNet in the compiler's interpreter, with the reference beside it."""

    def __init__(self, driver: Driver, graph: StaticGraph, reference: Runner) -> None:
        self._driver, self._graph, self._reference = driver, graph, reference
        self.psnr_db: list[float] = []

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, and note how far from the reference that is."""
        (answer,) = self._driver.run(ordered_inputs(inputs, self._graph.inputs))
        (port,) = self._graph.outputs
        found = answer.reshape(port.shape).astype(port.dtype)
        agreement = measure(found, self._reference.infer(inputs)[port.name]).agreement
        assert agreement is not None
        self.psnr_db.append(agreement.psnr_db)
        return {port.name: found}

    def close(self) -> None:
        """Close the reference; the driver is closed by who opened it."""
        self._reference.close()


def main() -> None:
    """Draw with both, and print one line."""
    parser = argparse.ArgumentParser(description="Judge a choice of INT8 by pictures.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--keep", default="^$", help="stays in F16: weights of such a path")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    scenes = fixed_scenes(options.pictures)
    with open_reference(bundle, SQUARE, open_torch_reference) as pipeline:
        wanted = draw(pipeline, scenes, QUICK)
    chosen = mixed.products_in_int8

    def without(graph: TopGraph) -> list[str]:
        return [n for n in chosen(graph) if not re.search(options.keep, graph[n].operands[1])]

    mixed.products_in_int8 = without
    with (
        lowered_unet(bundle, int8_job(bundle, options.calibration)) as unet,
        open_reference(
            bundle, SQUARE, lambda b, c: unet if c == "unet" else open_torch_reference(b, c)
        ) as pipeline,
    ):
        drawn = draw(pipeline, scenes, QUICK)
    right = accuracy(drawn, scenes, DAY)
    sys.stdout.write(f"{_summary(drawn, wanted)}, {right:.0%} show what was asked for; ")
    sys.stdout.write(f"UNet at worst {min(unet.psnr_db):.1f} dB\n")


def _summary(drawn: Sequence[Array], wanted: Sequence[Array]) -> str:
    pairs = [(a.clip(-1, 1), b.clip(-1, 1)) for a, b in zip(drawn, wanted, strict=True)]
    found = [measure(*pair).agreement for pair in pairs]
    decibels = [one.psnr_db for one in found if one is not None]
    tenth, median = np.percentile(decibels, [10, 50])
    worst = min(decibels)
    return f"pictures: median {median:.1f}, a tenth below {tenth:.1f}, worst {worst:.1f} dB"


def int8_job(bundle: Bundle, calibration: Path) -> CompileJob:
    """The miniature's UNet in int8-mixed, with the data of `sdconv calibrate`."""
    target = get_target(CHIP)
    request = CompileRequest(
        bundle.folder, CHIP, (SQUARE,), Path(), {"unet": "int8-mixed"}, components=("unet",)
    )
    (job,) = jobs_of(request, bundle, target)["unet"]
    return replace(job, calibration=find_data(calibration, bundle, "unet", job.size, job.batch))


@contextmanager
def lowered_unet(bundle: Bundle, job: CompileJob) -> Iterator[Lowered]:
    """Lower it as it is compiled, and open it."""
    graph, toolchain, weights = static_graph(job), TpuMlir(), bundle.weights("unet").file
    assert weights is not None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        lowered = lower_graph(toolchain, get_chip(CHIP), job, graph, weights, work, silent)
        argv: list[str | Path] = [toolchain.python, DRIVER, lowered, "[]", "value_mem"]
        driver = Driver("the compiler's interpreter", argv, toolchain.env(), work)
        try:
            yield Lowered(driver, graph, open_torch_reference(bundle, "unet"))
        finally:
            driver.close()


if __name__ == "__main__":
    main()
