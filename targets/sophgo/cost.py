"""What compiling a bmodel costs, from measurements of tpu-mlir 1.30.2 on two cores.

Sizes on disk follow from what the compiler writes: the placeholders, then three copies of all
weights that pass from stage to stage (the first in float32, two as the chip packs them), then the
bmodel, which holds them once more beside the chip's kernel module and the instructions. Without
its weights it is the skeleton. Memory follows the largest of those stages, the lowering, which
holds the float32 weights and the packed ones; the picture size hardly matters to it. Time is spent
per weight tensor on the search for layer groups, and per byte on reading and writing the copies.

Measured (wall seconds; peak is the largest process; disk: cache folder before the copies go; the
small model is `examples.small_models.SMALL`):

    network                                tensors   weights     peak        time   bmodel    disk
    text encoder of the small model, F32        36   13.2 MB  0.17 GB      4-6 s   18.8 MB   59 MB
    its VAE encoder, F16, 64x64                 74    1.8 MB  0.15 GB     5-10 s    6.7 MB   11 MB
    its VAE decoder, BF16, 64x64               106    2.8 MB  0.15 GB     8-15 s    7.3 MB   15 MB
    its VAE decoder, BF16, 512x512             106    2.8 MB  0.15 GB               8.5 MB   22 MB
    its UNet, F16, 64x64                       688   29.0 MB  0.19 GB    21-38 s   22.1 MB   92 MB
    its UNet, F16, 512x512                     688   29.0 MB  0.19 GB              24.5 MB  121 MB
    text encoder of SD1.5, F32                 196    492 MB   1.6 GB              499 MB  1.98 GB
    UNet of half SD1.5's width, F16, 128x128   686    861 MB   1.4 GB              446 MB  2.22 GB
    UNet of SD1.5, F16, 512x512                686   3.44 GB   5.2 GB  82, 130 s   1.73 GB
    UNet of SDXL, F16, 1024x1024              1680  10.27 GB  15.3 GB      206 s   5.17 GB
    UNet of SD1.5, F32, 512x512                686   3.44 GB  10.2 GB
"""

from collections.abc import Sequence

from converter.cost import Cost
from targets.base import Workload
from targets.placeholders import STEP
from targets.sophgo.precisions import PRECISIONS

PROCESSES = 360e6
"""Bytes of the program and the vendor's Python around the compiler, which they wait for."""
MEMORY_PER_TENSOR = 80e3
MEMORY_PER_WEIGHT_BYTE = {"f32": 2.9, "f16": 1.48, "bf16": 1.48, "int8": 1.85}
"""Bytes of the largest stage, per byte of float32 weights. W8 and W4 as the half precision beside
them; int8 as f16, but its network is run while its ranges are looked at, for which SD1.5's UNet at
512x512 takes 6.3 GB beside the weights in their file."""

KERNEL_MODULE = 5.64e6
"""Bytes of the chip's own programs, the same in every bmodel."""
INSTRUCTIONS_PER_TENSOR = 6e3
"""Bytes in a bmodel besides kernel module and weights: 4 to 6 KB at 64x64, 6 to 15 at 512x512."""
SKELETON_PER_TENSOR = 1.8e3
SKELETON_PER_TENSOR_AT_512 = {"vae_decoder": 40e3, "vae_encoder": 20e3}
OTHERS_AT_512 = 5.8e3
"""Bytes of a skeleton besides the kernel module: at no size, and what 512x512 adds; it grows with
the picture's side. Measured besides kernel module: SD1.5's UNet at 512x512 (686 tensors) 5.5 MB,
the miniature's at 64x64 1.3 MB; VAE decoder and encoder of SD1.5 at 512x512 7.5 and 2.0 MB."""
TEXT_PER_TENSOR = 26e3
"""Bytes of MLIR and profiles that are removed when it is done: 14 KB to 39 KB."""

STARTS = 2.5
"""Seconds that the vendor's programs need to begin, together."""
SECONDS_PER_TENSOR = 0.035
SECONDS_PER_WEIGHT_BYTE = 20e-9
SEARCH = {"normal": 1.0, "high": 3.0}
"""Times as long, by effort (README: SD1.5's UNet)."""

INTERPRETED_PER_SECOND = 10e9
"""Additions and multiplications of the interpreter: SD1.5's UNet at 512x512 takes 80 s."""
INTERPRETED_PER_WEIGHT_BYTE = 1.5
"""Bytes per byte of float32 weights, tensors included: 5.1 GB for that UNet, whose weights are
3.44 GB."""
LOWERING = 0.6
"""Share of a compilation's time that it takes to the lowered network."""

BIND_MEMORY = (110e6, 3)
"""Bytes of this program, and how many of the largest tensors it holds at a time."""
BIND_SECONDS = (0.5, 3e-9)
"""At no bytes, and per packed byte: read, cast, arranged, hashed and written."""


def compile_cost(work: Workload) -> Cost:
    """One size of one component: the vendor's programs from graph to skeleton."""
    job, precision = work.job, PRECISIONS[work.job.precision]
    bound = not precision.calibrated
    seconds = STARTS + SECONDS_PER_TENSOR * work.tensors
    seconds += SECONDS_PER_WEIGHT_BYTE * work.weights_bytes
    return Cost(
        memory=compile_memory(job.precision, work.tensors, work.weights_bytes),
        cached=round(_skeleton(work) + (0 if bound else _packed(work))),
        temporary=round(
            work.weights_bytes
            + (work.largest if bound else 0)  # the placeholders
            + 3 * _packed(work)
            + (STEP + TEXT_PER_TENSOR) * work.tensors  # they begin so far apart
        ),
        seconds=seconds * SEARCH[job.effort],
    )


def compile_memory(precision: str, tensors: int, weights_bytes: int) -> int:
    """Bytes of the vendor's largest program and of what waits for it, for float32 weights."""
    memory = PROCESSES + MEMORY_PER_TENSOR * tensors
    return round(memory + MEMORY_PER_WEIGHT_BYTE[PRECISIONS[precision].activations] * weights_bytes)


def interpretation_cost(work: Workload) -> Cost:
    """The way to the lowered network with all its weights, and to the interpreter."""
    compiling = compile_cost(work)
    memory = max(compiling.memory, PROCESSES + INTERPRETED_PER_WEIGHT_BYTE * work.weights_bytes)
    return Cost(
        memory=round(memory),
        temporary=disk_peak(work.weights_bytes, work.job.precision),
        seconds=LOWERING * compiling.seconds,
    )


def bind_cost(works: Sequence[Workload]) -> Cost:
    """One component's sizes as stages of one file, which hold the weights once."""
    packed = _packed(works[0])
    instructions = sum(INSTRUCTIONS_PER_TENSOR * work.tensors for work in works)
    return Cost(
        memory=round(BIND_MEMORY[0] + BIND_MEMORY[1] * works[0].largest),
        written=round(packed + KERNEL_MODULE + instructions),
        seconds=BIND_SECONDS[0] + BIND_SECONDS[1] * packed,
    )


def disk_peak(weights_bytes: int, precision: str) -> int:
    """Bytes that lie in the cache folder when a job is nearly done, a bmodel's extras included."""
    packed = weights_bytes * PRECISIONS[precision].weight_bytes / 4  # matrices take no more
    return round(weights_bytes + 3 * packed + 4 * KERNEL_MODULE)


def _packed(work: Workload) -> int:
    precision = PRECISIONS[work.job.precision]
    others = work.parameters - work.matrices
    return round(precision.matrix_bytes * work.matrices + precision.weight_bytes * others)


def _skeleton(work: Workload) -> float:
    """A bmodel without its weights, and what the compiler said of it."""
    size = work.job.size
    side = 0.0 if size is None else (size.width * size.height) ** 0.5
    more = SKELETON_PER_TENSOR_AT_512.get(work.job.component, OTHERS_AT_512)
    return KERNEL_MODULE + (SKELETON_PER_TENSOR + more * side / 512) * work.tensors
