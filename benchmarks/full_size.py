"""Measure the main job on a full-size checkpoint and print the README's table.

    python -m benchmarks.full_size FOLDER [--model sd15|sdxl] [--repeat 3] [--sophgo]

FOLDER gets a random checkpoint in the real layout (SD1.5: 2.1 GB, SDXL: 6.9 GB) and everything
made from it (about 20 GB). Wall time and the largest process of each command, as the system
accounts for them. With `--repeat` the export and the plain copy, which it is compared with,
alternate that many times, and the run of median wall time counts.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

PYTHON = [sys.executable, "-m"]
SDCONV = [sys.executable, "-c", "from sdconv.main import main; main()"]


@dataclass(frozen=True)
class Measured:
    """One command: seconds of wall and processor time, gigabytes of the largest process."""

    what: str
    wall: float
    cpu: float
    peak: float


def measure(what: str, command: Sequence[object]) -> Measured:
    """Run a command to its end; raises SystemExit when it fails."""
    words = [str(word) for word in command]
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execv(words[0], words)  # noqa: S606  (an argument list, no shell)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{what}: exit status {os.waitstatus_to_exitcode(status)}")
    return Measured(what, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)


def median(runs: Sequence[Measured]) -> Measured:
    """Return the run whose wall time is the median."""
    return sorted(runs, key=lambda run: run.wall)[len(runs) // 2]


def main() -> None:
    """Run every measurement and print one Markdown row each."""
    parser = argparse.ArgumentParser(description="Measure the main job at full size.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--repeat", type=int, default=1, help="of the export and the plain copy")
    parser.add_argument("--sophgo", action="store_true", help="also compile and bind for bm1684x")
    options = parser.parse_args()
    folder: Path = options.folder
    checkpoint, lora = folder / f"{options.model}.safetensors", folder / "lora.safetensors"
    if not checkpoint.exists():
        make = [
            *PYTHON,
            "examples.random_checkpoint",
            checkpoint,
            "--model",
            f"{options.model}-full",
        ]
        measure("make", [*make, "--lora", lora, "--rank", 16] if options.model == "sd15" else make)
    print("| step | wall s | CPU s | peak GB |\n|---|---|---|---|")
    rows = _export_rows(folder, checkpoint, options.repeat)
    if options.model == "sd15":
        rows = chain(
            rows,
            _ordinary_row(folder, checkpoint),
            _compile_rows(folder, sophgo=options.sophgo),
            _lora_rows(folder, checkpoint, lora),
            _bind_rows(folder, checkpoint, lora) if options.sophgo else (),
        )
    for row in rows:
        print(f"| {row.what} | {row.wall:.1f} | {row.cpu:.1f} | {row.peak:.2f} |", flush=True)


def _export_rows(folder: Path, checkpoint: Path, repeat: int) -> Iterator[Measured]:
    copy, bundle = folder / "copy.data", folder / "bundle"
    yield measure("inspect", [*SDCONV, "inspect", checkpoint])
    export = [*SDCONV, "export", "-u", checkpoint, "-o", bundle]
    if checkpoint.stem == "sdxl":
        export += ["--profile", "diffusers"]
    copies, exports = [], []
    for _ in range(repeat):
        command = [*PYTHON, "benchmarks.plain_copy", checkpoint, copy]
        copies.append(measure("plain read, cast, write", command))
        copy.unlink()
        shutil.rmtree(bundle, ignore_errors=True)
        exports.append(measure("export, all components", export))
    yield from (median(copies), median(exports))
    yield measure("export again", export)


def _ordinary_row(folder: Path, checkpoint: Path) -> Iterator[Measured]:
    command = [*PYTHON, "benchmarks.ordinary_export", checkpoint, folder / "ordinary.onnx"]
    yield measure("ordinary way, UNet alone", command)
    for file in folder.glob("ordinary.onnx*"):
        file.unlink()


def _lora_rows(folder: Path, checkpoint: Path, lora: Path) -> Iterator[Measured]:
    bundle = folder / "adapted"
    shutil.rmtree(bundle, ignore_errors=True)
    for what, scale in (("export with a LoRA", 0.8), ("another scale of it", 0.5)):
        command = [*SDCONV, "export", "-u", checkpoint, "-l", f"{lora}:{scale}", "-o", bundle]
        yield measure(what, command)


def _bind_rows(folder: Path, checkpoint: Path, lora: Path) -> Iterator[Measured]:
    """All components at two sizes: the shape compiled once, then other weights bound to it."""
    bundle, artifacts = folder / "adapted", folder / "bound"
    shutil.rmtree(artifacts, ignore_errors=True)
    base = [*SDCONV, "compile", "--target", "bm1684x", "--sizes", "512x512,768x512"]
    base += ["--no-validate", "-n"]
    yield measure("compile bm1684x, all, two sizes", [*base, folder / "bundle", "-o", artifacts])
    copy = "import shutil, sys; shutil.copytree(*sys.argv[1:])"
    copied = folder / "copied"
    command = [sys.executable, "-c", copy, artifacts / "bm1684x", copied]
    yield measure("plain copy of these artifacts", command)
    shutil.rmtree(copied)
    shutil.rmtree(artifacts)
    yield measure("bind other weights, all of them", [*base, bundle, "-o", artifacts])
    export = [*SDCONV, "export", "-u", checkpoint, "-l", f"{lora}:0.7", "-o", bundle]
    yield measure("export another scale", export)
    yield measure("bind another scale", [*base, bundle, "-o", artifacts])


def _compile_rows(folder: Path, *, sophgo: bool) -> Iterator[Measured]:
    base = [*SDCONV, "compile", "-n", folder / "bundle", "-o", folder / "artifacts"]
    base += ["--components", "unet", "--no-validate"]
    onnx = [*base, "--target", "onnxruntime", "--sizes"]
    yield measure("compile onnxruntime UNet 512x512", [*onnx, "512x512"])
    yield measure("one more size", [*onnx, "512x512,768x512"])
    yield measure("again, nothing changed", [*onnx, "512x512,768x512"])
    if sophgo:
        chip = [*base, "--target", "bm1684x", "--sizes", "512x512"]
        yield measure("compile bm1684x UNet F16 512x512", chip)
        yield measure("again, nothing changed", chip)


if __name__ == "__main__":
    main()
