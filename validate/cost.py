"""What judging an artifact takes, before there is one.

Measured on two cores with torch 2.13.0 and ONNX Runtime 1.31.1, full-size SD1.5 in float32; memory
is what the system cannot take back. From its second case on, ONNX Runtime keeps what the first
took and reserves as much again as one block (alone, the UNet at 512x512: 1.02 GB, then 2.01 GB; the
VAE decoder at 256x256: 0.35 GB, then 0.67 GB).

    component      size      one torch run   and one of ONNX Runtime   `validate`, all cases
    text encoder             0.29 GB         0.29 GB                   0.32 GB
    UNet           256x256   0.52 GB         0.53 GB
    UNet           512x512   0.55 GB         1.39 GB                   2.62 GB
    VAE encoder    256x256   0.54 GB         0.65 GB
    VAE encoder    512x512   0.98 GB         1.35 GB                   2.25 GB
    VAE decoder    256x256   0.70 GB         0.78 GB
    VAE decoder    512x512   1.33 GB         2.01 GB

Weights are not counted: both sides map them from files, so their pages are cache, which the system
takes back at need. (It also counts them for every side that maps them: 10.1 GB for the UNet at
512x512, whose file has 3.4 GB.)
"""

from dataclasses import replace

from converter.cost import Cost
from converter.operations import Activations
from targets.base import Target, Workload
from validate.base import EMULATOR_BUDGET

OPERATIONS_PER_SECOND = 78e9
"""Of torch and of ONNX Runtime on the CPU, float32, two cores: the four components of full-size
SD1.5 at 512x512, three or four cases each on both, are 28.3e12 operations and took six minutes."""

PROGRAM = 312e6
"""Bytes of the program with torch and diffusers."""
CONVOLUTIONS = 100e6
"""Bytes that the first convolution brings with it: compiled kernels and their buffers."""
TORCH_PER_BYTE = (1.7, 0.6)
"""Times the largest layer's activations, and times the largest convolution's weight (repacked)."""
RUNTIME_PER_BYTE = (6.4, 3.0)
"""Of ONNX Runtime: times the same activations, and times the largest matrix of attention weights,
which torch never holds whole. Half of it is what the first case takes."""


def judge_cost(work: Workload, cases: int, target: Target, largest: Activations) -> Cost | None:
    """One artifact, itself or by its lowered network; None where nothing of it can be run here."""
    memory = _memory(largest, target, work)
    seconds = _seconds(work, cases, target)
    if seconds is not None:
        return Cost(memory, seconds=seconds)
    lowered = target.predict_interpretation(work)
    if lowered is None:
        return None
    opening, run = lowered
    affordable = min(cases, 1 + int(max(0.0, EMULATOR_BUDGET - opening.seconds) // run))
    reference = work.operations / OPERATIONS_PER_SECOND
    return replace(
        opening,
        memory=memory + opening.memory,
        seconds=opening.seconds + affordable * (run + reference),
    )


def _memory(largest: Activations, target: Target, work: Workload) -> int:
    """Bytes that torch, and a target that runs in this process, take at most; without weights.

    A vendor's emulator or interpreter is a process of its own, and not counted.
    """
    layer, kernel = TORCH_PER_BYTE
    taken = layer * largest.layer + kernel * largest.kernel
    if target.predict_run(work) is None:
        layer, attention = RUNTIME_PER_BYTE
        taken = max(taken, layer * largest.layer + attention * largest.attention)
    return round(PROGRAM + (CONVOLUTIONS if largest.kernel else 0) + taken)


def _seconds(
    work: Workload, cases: int, target: Target, budget: float = EMULATOR_BUDGET
) -> float | None:
    """Seconds for as many of the cases as `budget` (seconds) lets an emulator run; None for none.

    A target that runs on this machine itself has no budget.
    """
    reference = work.operations / OPERATIONS_PER_SECOND
    run = target.predict_run(work)
    if run is None:
        return cases * 2 * reference
    affordable = min(cases, int(budget // run))
    return affordable * (run + reference) if affordable else None
