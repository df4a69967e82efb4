"""Proof that tpu-mlir works here: a network small enough to check by hand, compiled and run."""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from converter.progress import Event, Progress, silent
from converter.weights import Array
from targets.base import CompileJob, ToolchainError
from targets.calibration import CalibrationData
from targets.driver import PortAt
from targets.micro_network import MicroNetwork, write_micro_network
from targets.sophgo.chips import CHIPS, Chip
from targets.sophgo.compilation import BMODEL_FILE, compile_graph
from targets.sophgo.emulator import EmulatorRunner
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.precisions import PRECISIONS
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir
from targets.toolchains import Proof

TOLERANCES = {
    "f32": 1e-5,  # another order of summation, nothing else
    "f16": 5e-3,  # 11 bits of mantissa at input, weights and two outputs: 4 x 2**-11 at most
    "w8f16": 1e-2,  # the matrix in 255 steps of 6 deviations: 0.7 % of its own, 0.5 % measured
    "w4f16": 0.2,  # in 15 steps: 12 % of its deviation, 10 % measured
    "int8-mixed": 3e-2,  # filter, matrix and what they are multiplied by, 1 % each: 1.6 % measured
}
"""Largest relative error (2-norm) of the answer, per precision. The bf16 kinds and int8 whole take
the same ways through the compiler."""


def prove(toolchain: TpuMlir, progress: Progress) -> list[Proof]:
    """Start the programs, then compile and run the micro network per chip and precision."""
    stage = f"check {toolchain.name} {toolchain.version}"
    progress(Event(stage, 0.0))
    proofs = list(_started_programs(toolchain))
    if not all(proof.works for proof in proofs):
        return proofs  # nothing can be compiled with a program that does not start
    trials = list(_trials())
    for done, (chip, precision) in enumerate(trials, start=1):
        proofs.append(_try(toolchain, chip, precision))
        progress(Event(stage, done / len(trials)))
    return proofs


def _trials() -> Iterator[tuple[Chip, str]]:
    """Every precision of every chip, and f16 on the most cores that can be emulated."""
    emulated = [chip for chip in CHIPS.values() if chip.no_emulator is None]
    most = {chip.name: chip.cores for chip in emulated}
    for chip in emulated:
        for precision in TOLERANCES:
            once = chip.cores == 1 or (chip.cores, precision) == (most[chip.name], "f16")
            if once and precision in chip.precisions:
                yield chip, precision


def _started_programs(toolchain: TpuMlir) -> Iterator[Proof]:
    for name, argument in (("tpuc-opt", "--version"), ("model_tool", "")):
        argv = [str(toolchain.program(name)), *([argument] if argument else [])]
        try:
            run = subprocess.run(
                argv,
                env=toolchain.env(),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,  # model_tool's help ends with 255: a crash is a negative code
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            yield Proof(name, works=False, detail=str(e))
            continue
        said = run.stderr.strip().splitlines() or ["it prints nothing"]
        crashed = run.returncode < 0
        yield Proof(name, works=not crashed, detail=said[-1] if crashed else "starts")


def _try(toolchain: TpuMlir, chip: Chip, precision: str) -> Proof:
    what = f"convolution and matrix product on the {chip.target} emulator, {precision}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = write_micro_network(folder)
        graph = _static(network)
        job = CompileJob("micro", graph.path, graph.sha256, (), None, 1, precision)
        if PRECISIONS[precision].calibrated:
            job = replace(job, calibration=_calibration(folder / "calibration", network.picture))
        try:
            compile_graph(toolchain, chip, job, graph, network.weights, folder, silent)
            record = StageRecord.load(folder)
            with EmulatorRunner(toolchain, chip, folder / BMODEL_FILE, record) as runner:
                answer = runner.infer({"picture": network.picture})["product"]
        except ToolchainError as e:
            return Proof(what, works=False, detail=str(e))
    error = float(np.linalg.norm(answer - network.product) / np.linalg.norm(network.product))
    limit = TOLERANCES[precision]
    return Proof(what, works=error <= limit, detail=f"relative error {error:.1e} (limit {limit:g})")


def _static(network: MicroNetwork) -> StaticGraph:
    """The micro network as the compiler is given graphs."""
    return StaticGraph(
        network.graph,
        sha256(network.graph.read_bytes()).hexdigest(),
        (PortAt("picture", "float32", (1, 4, 8, 8)),),
        (PortAt("product", "float32", (1, 8, 64)),),
    )


def _calibration(folder: Path, picture: Array) -> CalibrationData:
    """The micro network has no real inputs: its ranges are those of the one that it is tried on."""
    folder.mkdir()
    np.savez(folder / "0000.npz", picture=picture)
    return CalibrationData.of(folder)
