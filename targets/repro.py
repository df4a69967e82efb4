"""A folder with everything to show the vendor a failure: graph, commands, log, versions."""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.folders import cache_folder
from targets.base import CompileJob
from targets.environments import RECORD_FILE
from targets.toolchains import Toolchain

REPRO_FILE = "repro.sh"
LARGEST_KEPT = 16 << 20
"""Bytes. Graphs, MLIR, logs and scripts are smaller; the weights' intermediate files are not."""


def keep_repro(
    toolchain: Toolchain,
    target: str,
    job: CompileJob,
    commands: Sequence[Sequence[str | Path]],
    work: Path,
    places: Mapping[str, str] | None = None,
) -> Path:
    """Copy a failed job's small files to the cache's `failures` folder; the script to run it again.

    `places` are variables that name places in that folder, relative to it.
    A later failure of the same job replaces the folder; nothing else ever removes it.
    """
    words = [target, job.component, str(job.size or ""), job.precision, job.graph_sha256[:8]]
    folder = cache_folder() / "failures" / "-".join(word for word in words if word)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in work.iterdir():
        if file.is_file() and file.stat().st_size <= LARGEST_KEPT:
            shutil.copyfile(file, folder / file.name)
    for script in (word for argv in commands for word in argv if _is_ours(word)):
        shutil.copyfile(script, folder / Path(script).name)
    (folder / REPRO_FILE).write_text(_script(toolchain, commands, places or {}))
    record = toolchain.folder / RECORD_FILE
    versions = (
        json.loads(record.read_text()) if record.is_file() else {"version": toolchain.version}
    )
    (folder / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    return folder / REPRO_FILE


def _script(
    toolchain: Toolchain, commands: Sequence[Sequence[str | Path]], places: Mapping[str, str]
) -> str:
    """The commands as a shell script, for a reader; nothing here ever runs it.

    The weights are named where they lie: they are too big to send, and may not be the sender's.
    """
    env = toolchain.env()
    lines = ["#!/bin/sh", "set -e", 'cd "$(dirname "$0")"']
    lines += [f"export {name}={shlex.quote(env[name])}" for name in toolchain.variables]
    lines += [f'export {name}="$PWD/{place}"' for name, place in places.items()]
    for argv in commands:
        local = (Path(word).name if _is_ours(word) else str(word) for word in argv)
        lines.append(shlex.join(local))
    return "\n".join(lines) + "\n"


def _is_ours(word: str | Path) -> bool:
    """Whether a word of a command is one of the scripts of this package."""
    return isinstance(word, Path) and word.is_relative_to(Path(__file__).parent)
