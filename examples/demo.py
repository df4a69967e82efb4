"""The main job on the trained miniature, from nothing: `make demo`.

The miniature with its LCM-LoRA is exported, compiled at two sizes for ONNX Runtime and, where the
Sophgo toolchain can be had, for the BM1684X, judged against torch, and made to draw. Every step
is the command a user would type, and is printed.
"""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from examples.mini.pictures import Scene
from examples.mini.recognise import recognise
from examples.mini.score import FILES, QUICK
from sdconv.main import run
from targets.base import ToolchainError
from validate.store import read_arrays

SIZES = "64x64,128x64"
SCENE = Scene("circle", "red", "blue")


def main() -> None:
    """Run the demo in the folder named on the command line."""
    folder = Path(sys.argv[1])
    checkpoint, lora = FILES / "mini-sd15.safetensors", FILES / "mini-lcm-lora.safetensors"
    bundle, artifacts = folder / "bundle", folder / "artifacts"
    sdconv("inspect", checkpoint)
    sdconv("export", "-u", checkpoint, "-l", lora, "-o", bundle)
    targets = ["onnxruntime"]
    if sophgo_ready():
        targets.append("bm1684x")
    for target in targets:
        options = ("--target", target, "--sizes", SIZES, "-o", artifacts, "--no-validate")
        sdconv("compile", "-n", bundle, *options)
    sdconv("validate", artifacts, *replace(QUICK, prompt=SCENE.caption()).command())
    report = json.loads((artifacts / "report.json").read_text())
    print(f'\nasked for: "{SCENE.caption()}"')
    for result in report["results"]:
        if result["level"] == "picture" and result["saved"] is not None:
            print(f"{result['target']} at {result['size']} drew: {seen(Path(result['saved']))}")
    print(f"artifacts: {artifacts}\nreport:    {artifacts / 'report.html'}")
    print(f"verdict:   {report['verdict']}")


def seen(saved: Path) -> str:
    """Say in words what plain image processing finds in a saved picture."""
    found = recognise(read_arrays(saved)["picture"][0])
    return Scene(found.shape, found.colour, found.background).caption()


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
