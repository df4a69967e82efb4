"""Measure the main job on a full-size SD1.5 checkpoint and print the README's table.

    python -m benchmarks.sd15 FOLDER [--sophgo]

FOLDER gets a random checkpoint in the real layout (2.1 GB) and everything made from it (about
20 GB). Wall time and the largest process of each command, as the system accounts for them.
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


def main() -> None:
    """Run every measurement and print one Markdown row each."""
    parser = argparse.ArgumentParser(description="Measure the main job at full size.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sophgo", action="store_true", help="also compile the UNet for bm1684x")
    options = parser.parse_args()
    folder: Path = options.folder
    checkpoint = folder / "sd15.safetensors"
    if not checkpoint.exists():
        measure("make", [*PYTHON, "examples.random_checkpoint", checkpoint, "--model", "sd15-full"])
    print("| step | wall s | CPU s | peak GB |\n|---|---|---|---|")
    rows = chain(_export_rows(folder, checkpoint), _compile_rows(folder, sophgo=options.sophgo))
    for row in rows:
        print(f"| {row.what} | {row.wall:.1f} | {row.cpu:.1f} | {row.peak:.2f} |", flush=True)


def _export_rows(folder: Path, checkpoint: Path) -> Iterator[Measured]:
    copy, bundle, ordinary = folder / "copy.data", folder / "bundle", folder / "ordinary.onnx"
    shutil.rmtree(bundle, ignore_errors=True)
    yield measure("inspect", [*SDCONV, "inspect", checkpoint])
    command = [*PYTHON, "benchmarks.plain_copy", checkpoint, copy]
    yield measure("plain read, cast, write", command)
    copy.unlink()
    export = [*SDCONV, "export", "-u", checkpoint, "-o", bundle]
    yield measure("export, all components", export)
    yield measure("export again", export)
    command = [*PYTHON, "benchmarks.ordinary_export", checkpoint, ordinary]
    yield measure("ordinary way, UNet alone", command)
    for file in folder.glob("ordinary.onnx*"):
        file.unlink()


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
