"""Compare what `sdconv inspect --plan` predicts with what then happens, and print a table.

    python -m benchmarks.plan MODEL FOLDER --target bm1684x --sizes 512x512

FOLDER gets bundle, artifacts and a cache of its own, so that nothing is there already. Memory is
that of the largest process as the system accounts for it; a plan counts all that run at once.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.full_size import SDCONV, measure
from converter.folders import data_folder


def main() -> None:
    """Plan, export, compile; one Markdown row for each command."""
    parser = argparse.ArgumentParser(description="Compare a plan with what happens.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--sizes", required=True)
    options = parser.parse_args()
    home = options.folder.absolute() / "home"
    home.mkdir(parents=True)
    if data_folder().is_dir():
        (home / "data").symlink_to(data_folder())
    os.environ["SDCONV_HOME"] = str(home)
    words = ["--plan", "--target", options.target, "--sizes", options.sizes]
    command = [*SDCONV, "inspect", options.model, *words, "-o", options.folder, "--json"]
    said = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout
    plan = json.loads(said)["plan"]
    print("| command | predicted: GB | disk GB | s | measured: GB | disk GB | s (processor) |")
    print("|---|---|---|---|---|---|---|")
    for row in _rows(plan, options.folder):
        print(row, flush=True)


def _rows(plan: dict[str, Any], folder: Path) -> Iterator[str]:
    verbs = {"export": ("trace", "export"), "compile": ("gather", "compile", "bind")}
    start = plan["steps"][0]
    for command in plan["commands"]:
        steps = [step for step in plan["steps"] if step["step"] in verbs[command[1]]]
        memory = max(step["memory"] for step in steps) / 1e9
        disk = sum(step["written"] + step["cached"] for step in steps) / 1e9
        seconds = start["seconds"] / len(plan["commands"])
        seconds += sum(step["seconds"] for step in steps)
        judged = ["--no-validate"] if command[1] == "compile" else []
        before = _bytes_in(folder)
        done = measure(command[1], [*SDCONV, *command[1:], *judged])
        grown = (_bytes_in(folder) - before) / 1e9
        yield (
            f"| {command[1]} | {memory:.2f} | {disk:.3f} | {seconds:.1f} | {done.peak:.2f} "
            f"| {grown:.3f} | {done.wall:.1f} ({done.cpu:.1f}) |"
        )


def _bytes_in(folder: Path) -> int:
    """What the files of a folder occupy, those with several names once; links are not followed."""
    files = {
        (stat.st_dev, stat.st_ino): stat.st_blocks * 512
        for root, _, names in os.walk(folder)
        for name in names
        for stat in [(Path(root) / name).lstat()]
    }
    return sum(files.values())


if __name__ == "__main__":
    main()
