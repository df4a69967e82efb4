"""Measure MNN at full size: conversion, binding, sizes, one run beside ONNX Runtime, agreement.

    python -m benchmarks.mnn FOLDER [--components text_encoder,unet] [--precisions f16,w8]

FOLDER gets random checkpoints in the real layout (SD1.5: 2.1 GB, for the second text encoder SDXL:
6.9 GB), their exports, artifacts and a cache of its own, so that every conversion really happens:
25 GB. Prints one Markdown row for each component and precision.

Seconds are of processor time, all threads together, which is what a run takes on any number of
cores whatever else they do; the peak is of the largest process. A run is the second one of a
session; both runtimes get the same inputs, and PSNR is against ONNX Runtime in float32.
"""

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

from benchmarks.full_size import PYTHON, SDCONV, Measured, measure
from converter.bundle import Bundle
from converter.interface import Interface
from converter.sizes import Size
from converter.weights import Array
from targets.base import Artifact
from targets.manifest import Manifest
from targets.registry import get_target
from validate.metrics import measure as compare

SIZE = Size(512, 512)
COMPONENTS = {
    "text_encoder": "sd15",
    "text_encoder_2": "sdxl",
    "unet": "sd15",
    "vae_decoder": "sd15",
}
"""Component -> the model that it is taken from."""

WANTED = ("f32", "f16", "w8", "w8-channel", "w8a8", "w4", "w4-hqq", "w4-b32")
ROW = "| {} | {} | {:.1f} | {:.2f} | {:.1f} | {:.2f} | {} | {:.1f} | {:.2f} | {:.2f} | {:.2f} |"
HEAD = (
    "| component | precision | convert and bind CPU s | peak GB | bind alone CPU s | peak GB | "
    "files MB | PSNR dB | run CPU s | ONNX Runtime CPU s | MNN's memory GB |\n" + "|---" * 11 + "|"
)


@dataclass(frozen=True)
class Ran:
    """One run: outputs, processor seconds, and the gigabytes that its process held."""

    outputs: Mapping[str, Array]
    seconds: float
    memory: float


def main() -> None:
    """Measure, and print a row as soon as it is known."""
    parser = argparse.ArgumentParser(description="Measure MNN at full size.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--components", default=",".join(COMPONENTS))
    parser.add_argument("--precisions", default=",".join(WANTED))
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    os.environ["SDCONV_HOME"] = str(folder / "home")
    measure("install", [*SDCONV, "toolchain", "install", "mnn"])
    print(HEAD)
    for component in options.components.split(","):
        bundle = _bundle(folder, component)
        reference = _reference(folder, bundle, component)
        for precision in options.precisions.split(","):
            row = _row(folder, bundle, component, precision, reference)
            print(ROW.format(*row), flush=True)


def _bundle(folder: Path, component: str) -> Bundle:
    """The component exported from a random checkpoint."""
    model = COMPONENTS[component]
    checkpoint, output = folder / f"{model}.safetensors", folder / f"{model}-{component}"
    if not checkpoint.exists():
        make = [*PYTHON, "examples.random_checkpoint", checkpoint, "--model", f"{model}-full"]
        measure("make", make)
    export = [*SDCONV, "export", "-u", checkpoint, "-o", output, "--profile", "diffusers"]
    measure("export", [*export, "--components", component])
    return Bundle.load(output)


def _compile(
    bundle: Bundle, component: str, target: str, output: Path, precision: str = "f32"
) -> tuple[Measured, Artifact]:
    command = [*SDCONV, "compile", "-n", bundle.folder, "--target", target, "--sizes", str(SIZE)]
    command += ["-o", output, "--precision", f"{component}={precision}", "--no-validate"]
    measured = measure("compile", command)
    return measured, Manifest.load(output).artifacts[0]


def _row(
    folder: Path, bundle: Bundle, component: str, precision: str, reference: Ran
) -> Iterator[object]:
    output = folder / "artifacts"
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(folder / "home" / "cache" / "skeletons", ignore_errors=True)
    both, _ = _compile(bundle, component, "mnn", output, precision)
    shutil.rmtree(output)
    bind, artifact = _compile(bundle, component, "mnn", output, precision)
    files = [output / name for name in (artifact.path, *artifact.files)]
    ran = _run("mnn", artifact, output, _inputs(bundle.components[component].interface))
    worst = min(_psnr(ran.outputs[name], wanted) for name, wanted in reference.outputs.items())
    yield from (component, precision, both.cpu, both.peak, bind.cpu, bind.peak)
    yield " + ".join(f"{file.stat().st_size / 1e6:.1f}" for file in files)
    yield from (worst, ran.seconds, reference.seconds, ran.memory)


def _reference(folder: Path, bundle: Bundle, component: str) -> Ran:
    """ONNX Runtime's answer, and how long it takes.

    It runs in a process of its own: what it holds would count as a peak of every later command.
    """
    output = folder / f"onnxruntime-{component}"
    _, artifact = _compile(bundle, component, "onnxruntime", output)
    inputs = _inputs(bundle.components[component].interface)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_run, "onnxruntime", artifact, output, inputs).result()


def _run(target: str, artifact: Artifact, folder: Path, inputs: Mapping[str, Array]) -> Ran:
    with get_target(target).open(artifact, folder) as runner:
        runner.infer(inputs)  # the first one packs weights and reserves memory
        processes = psutil.Process().children() or [psutil.Process()]
        runs = max(processes, key=_memory)  # the other is Python's, and small
        before = _cpu(runs)
        outputs = runner.infer(inputs)
        return Ran(outputs, _cpu(runs) - before, _memory(runs))


def _memory(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e9)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _inputs(interface: Interface) -> dict[str, Array]:
    """Inputs of the kind that each port takes: tokens, a timestep, else unit noise."""
    rng = np.random.default_rng(0)
    found = {}
    for port in interface.inputs:
        shape = port.at(1, SIZE)
        if "int" in port.dtype:
            ids = np.full(shape, 49407)
            ids[:, :20] = rng.integers(0, 49000, (shape[0], 20))
            found[port.name] = ids.astype(port.dtype)
        elif port.shape == (1,):
            found[port.name] = np.array([501], port.dtype)
        else:
            found[port.name] = rng.standard_normal(shape, np.float32)
    return found


def _psnr(output: Array, reference: Array) -> float:
    agreement = compare(output, reference).agreement
    return float("nan") if agreement is None else agreement.psnr_db


if __name__ == "__main__":
    main()
