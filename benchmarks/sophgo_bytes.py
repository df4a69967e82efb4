"""Is what binding gives what compiling with the weights gives? At full size, byte for byte.

    python -m benchmarks.sophgo_bytes BUNDLE unet [--size 512x512] [--precision f16]

BUNDLE is a folder of `sdconv export`. Prints one Markdown row: seconds of compiling the skeleton,
of binding and of compiling with the weights, and whether the two files are equal but for
the compiler's clock and its hash of the weights.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converter.bundle import Bundle
from converter.progress import Progress, silent
from converter.sizes import parse_sizes
from converter.weights import WeightSource
from targets.base import CompileJob
from targets.compile import CompileRequest, jobs_of
from targets.sophgo.bmodel.layout import SHA256_SIZE
from targets.sophgo.bmodel.reading import HEADER_SIZE, Bmodel, read_bmodel, stages
from targets.sophgo.chips import get_chip
from targets.sophgo.compilation import BMODEL_FILE, compile_graph
from targets.sophgo.graphs import static_graph
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir


def bound(
    target: SophgoTarget, job: CompileJob, weights: WeightSource, folder: Path, progress: Progress
) -> Path:
    """The bmodel of a skeleton to which the weights are bound."""
    skeleton = target.compile(job, weights, progress)
    (artifact,) = target.bind([skeleton], weights, folder, progress)
    assert artifact.how == "bound"
    return folder / artifact.path


def whole(
    target: SophgoTarget, job: CompileJob, weights: WeightSource, folder: Path, progress: Progress
) -> Path:
    """The bmodel that the vendor's compiler makes with the weights."""
    folder.mkdir()
    chip = get_chip(target.name)
    compile_graph(TpuMlir(), chip, job, static_graph(job), weights.file, folder, progress)
    return folder / BMODEL_FILE


def same_but_time(one: Path, other: Path, *, but_hash: bool = False) -> bool:
    """Whether two bmodels are equal but for `Model.time`, when the compiler finished.

    `but_hash`: and but for the SHA-256 of the weights. Ours is that of all of them; the compiler's
    is another from 512 MB on, where a number of bits no longer fits into 32.
    """
    headers = [_timeless(read_bmodel(path), but_hash=but_hash) for path in (one, other)]
    if one.stat().st_size != other.stat().st_size or headers[0] != headers[1]:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(len(headers[0]))
        second.seek(len(headers[1]))
        while chunk := first.read(1 << 24):
            if chunk != second.read(1 << 24):
                return False
    return True


def _timeless(bmodel: Bmodel, *, but_hash: bool) -> bytes:
    """The header with zeros for the time, and for the hashes of weights where they do not count."""
    header, time = bytearray(bmodel.header), bmodel.model.time.encode()
    places = [(header.index(time), len(time))]
    if but_hash:
        memories = [stage.coeff_mem for _, stage in stages(bmodel.model) if stage.coeff_mem]
        places += [(HEADER_SIZE + m.places["check_code"], SHA256_SIZE) for m in memories]
    for at, size in places:
        header[at : at + size] = bytes(size)
    return bytes(header)


def main() -> None:
    """Make both files and compare them."""
    parser = argparse.ArgumentParser(description="Compare binding with compiling.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("component")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--precision", default="f16")
    parser.add_argument("--chip", default="bm1684x")
    options = parser.parse_args()
    bundle, target = Bundle.load(options.bundle), SophgoTarget(options.chip)
    name, weights = options.component, bundle.weights(options.component)
    request = CompileRequest(
        bundle.folder,
        options.chip,
        parse_sizes(options.size),
        precision={name: options.precision},
        components=(name,),
    )
    ((job,),) = jobs_of(request, bundle, target).values()
    seconds: list[float] = []

    @contextmanager
    def timed() -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds.append(time.perf_counter() - start)

    with tempfile.TemporaryDirectory(dir=options.bundle.parent) as scratch:
        folder = Path(scratch)
        with timed():
            target.skeleton(job, silent)
        with timed():
            ours = bound(target, job, weights, folder / "bound", silent)
        with timed():
            theirs = whole(target, job, weights, folder / "whole", silent)
        size, equal = ours.stat().st_size, same_but_time(ours, theirs, but_hash=True)
    told = " | ".join(f"{value:.1f}" for value in seconds)
    print(f"| {job.label} | {size / 1e9:.2f} GB | {told} | {'equal' if equal else 'NOT equal'} |")


if __name__ == "__main__":
    main()
