"""How long the chip emulator takes for one run, estimated from the compiler's cycle model.

The emulator executes every instruction, and arithmetic dominates: seconds grow with the number
of operations, at a rate that depends on the precision (it computes f16 in software), plus a fixed
price per compute instruction. The rates were fitted to runs of tpu-mlir 1.30.2's bm1684x emulator
on two cores of 2020s server hardware. Seconds are wall time; the three with a star were taken on
a busy machine, as half the processor time (it keeps two threads busy):

    network (14 million parameters unless said)   precision  GFLOP  instructions  measured  formula
    UNet of SD1.5, full size, 64x64               f16        13.66         18573       614      612
    UNet 64x64                                    f16         0.126        11723      13.1     12.6
    UNet 128x128                                  f16         0.485        11820     *29.8     28.4
    VAE decoder 64x64                             f16         0.715         2630     *20.8     33.0
    UNet 64x64                                    bf16        0.126         9323       7.8      7.2
    VAE decoder 64x64                             bf16        0.715         1762      10.5     10.4
    VAE decoder 128x128                           bf16        2.874         5016     *44.9     40.4
    text encoder                                  f32         0.019          215       0.9      0.9
    UNet 64x64                                    f32         0.126         7250       9.6      9.4
    VAE decoder 64x64                             f32         0.715         1647       3.1     29.6

So it is good to a factor of two, except for f32 convolutions, where it is ten times too careful.
On a busy machine the emulator takes longer. W8 and W4 count as the half precision beside them, int8
as f16, in which much of an int8-mixed network is.
"""

from targets.base import Workload
from targets.sophgo.precisions import PRECISIONS
from targets.sophgo.record import StageRecord

SECONDS_PER_GFLOP = {"f32": 40.0, "f16": 44.0, "bf16": 13.0, "int8": 44.0}
SECONDS_PER_INSTRUCTION = 0.6e-3


INSTRUCTIONS_PER_TENSOR = 20
"""Compute instructions per weight, for want of a cycle model: 16 to 27 in the table above."""


def emulation_seconds(record: StageRecord) -> float:
    """Seconds of wall time of one run on a machine with two free cores."""
    model = record.cycle_model
    return _seconds(record.precision, model.flops, model.computes)


def predicted_seconds(work: Workload) -> float:
    """The same for a job that is not compiled yet."""
    return _seconds(work.job.precision, work.operations, INSTRUCTIONS_PER_TENSOR * work.tensors)


def _seconds(precision: str, operations: int, instructions: int) -> float:
    arithmetic = SECONDS_PER_GFLOP[PRECISIONS[precision].activations] * operations / 1e9
    return arithmetic + SECONDS_PER_INSTRUCTION * instructions
