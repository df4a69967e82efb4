"""The main job on a small model, from nothing: `make demo`.

A random checkpoint in SD1.5's layout and a LoRA for it are exported, compiled at two sizes for
ONNX Runtime and, where the Sophgo toolchain can be had, for the BM1684X, and judged against torch.
Every step is the command a user would type, and is printed.
"""

import json
import shlex
import sys
from pathlib import Path

from examples.random_checkpoint import SMALL, write_checkpoint, write_lora
from sdconv.main import run
from targets.base import ToolchainError

SIZES = "64x64,128x64"


def main() -> None:
    """Run the demo in the folder named on the command line."""
    folder = Path(sys.argv[1])
    checkpoint, lora = folder / "small.safetensors", folder / "small-lora.safetensors"
    if not checkpoint.exists():
        write_checkpoint(checkpoint, SMALL)
    if not lora.exists():
        write_lora(lora, SMALL)
    bundle, artifacts = folder / "bundle", folder / "artifacts"
    sdconv("inspect", checkpoint)
    sdconv("export", "-u", checkpoint, "-l", f"{lora}:0.8", "-o", bundle)
    targets = ["onnxruntime"]
    if sophgo_ready():
        targets.append("bm1684x")
    for target in targets:
        options = ("--target", target, "--sizes", SIZES, "-o", artifacts, "--no-validate")
        sdconv("compile", "-n", bundle, *options)
    sdconv("validate", artifacts)
    report = json.loads((artifacts / "report.json").read_text())
    print(f"artifacts: {artifacts}\nreport:    {artifacts / 'report.html'}")
    print(f"verdict:   {report['verdict']}")


def sophgo_ready() -> bool:
    """Install the Sophgo toolchain where a Python 3.10 is found; say so where none is."""
    from targets.toolchains import find_python, get_toolchain

    if get_toolchain("tpu-mlir").problem() is not None:
        try:
            find_python((3, 10))
        except ToolchainError as e:
            print(f"no bmodels in this demo: {e}")
            return False
        sdconv("toolchain", "install", "tpu-mlir")
    return True


def sdconv(*arguments: object) -> None:
    """Run one command of the tool as a user would; stop the demo if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ sdconv {shlex.join(words)}", flush=True)
    code = run(words)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
