"""A folder that shows a failure to whoever can mend it, and the command that runs it again.

graph.onnx      the smallest part that fails, weights inside
inputs.npz      what it is given;  expected.npz what ONNX Runtime gives in fp32;  got.npz the target
repro.json      target, precision, what was asked, versions
README.md       the same in words, with the command
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from converter.cache import Cache
from converter.errors import InputError
from converter.files import read_json, replacing, sha256_of, write_json
from converter.weights import Array
from passes.weights import WEIGHTS_FILE
from targets.base import CompileJob, Target
from targets.registry import get_target
from validate.base import Judge, Result, Ruling, Threshold
from validate.judge import ComponentJudge
from validate.reduce.trial import Outcome, Stand
from validate.reduce.weights import split_weights
from validate.versions import versions_here

REPRO_FILE = "repro.json"
GRAPH, INPUTS, EXPECTED, GOT = "graph.onnx", "inputs.npz", "expected.npz", "got.npz"


@dataclass(frozen=True)
class Repro:
    """What `repro.json` holds (schema 1)."""

    label: str
    component: str
    target: str
    precision: str
    lowered: bool
    threshold: Threshold
    sentence: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, result: Result, stand: Stand, sentence: str) -> "Repro":
        """Of an artifact that was reduced on a stand."""
        return cls(
            result.label,
            result.component,
            result.target,
            result.precision,
            stand.lowered,
            result.threshold,
            sentence,
            versions_here(),
        )

    @classmethod
    def load(cls, folder: Path) -> "Repro":
        """Read a folder's; raises InputError for one of another version."""
        data = read_json(folder / REPRO_FILE, "what 'sdconv validate --reduce' writes")
        try:
            schema = data.pop("schema")
            known = cls(**{**data, "threshold": Threshold(**data["threshold"])})
        except (KeyError, TypeError) as e:
            raise InputError(f"{folder / REPRO_FILE}: damaged ({e}): reduce again") from e
        if schema != 1:
            raise InputError(f"{folder / REPRO_FILE}: schema {schema!r} is not known here")
        return known


def write_repro(repro: Repro, part: onnx.ModelProto, outcome: Outcome, folder: Path) -> None:
    """Write the whole folder; what an earlier reduction left there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / GRAPH) as work:
        onnx.save_model(part, str(work))
    for name, arrays in (
        (INPUTS, outcome.inputs),
        (EXPECTED, outcome.expected),
        (GOT, outcome.outputs),
    ):
        _save(folder / name, arrays)
    write_json(folder / REPRO_FILE, {"schema": 1, **asdict(repro)})
    with replacing(folder / "README.md") as work:
        work.write_text(_words(repro, part, folder))


def run_repro(
    folder: Path,
    open_target: Callable[[str], Target] = get_target,
    judge: Judge | None = None,
) -> tuple[Repro, Ruling]:
    """Run a repro folder again; the ruling says whether it still fails. Raises ToolchainError."""
    repro = Repro.load(folder)
    for name in (GRAPH, INPUTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing: reduce again")
    with np.load(folder / INPUTS) as saved:
        inputs = {name: saved[name] for name in saved.files}
    target = open_target(repro.target)
    target.check_ready()
    with Cache("reduced").scratch() as work:
        weights = split_weights(folder / GRAPH, work / GRAPH, work / WEIGHTS_FILE)
        job = CompileJob(
            repro.component,
            work / GRAPH,
            sha256_of(work / GRAPH),
            tuple((name, array.shape) for name, array in inputs.items()),
            None,
            1,
            repro.precision,
        )
        judge = judge or ComponentJudge()
        stand = Stand(target, job, weights, judge, repro.threshold, work, repro.lowered)
        outcome = stand.run(onnx.load(work / GRAPH, load_external_data=False), inputs)
    return repro, outcome.ruling


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    members: dict[str, Any] = dict(arrays)
    with replacing(path) as work, work.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **members)


def _words(repro: Repro, part: onnx.ModelProto, folder: Path) -> str:
    nodes = "\n".join(
        f"    {node.op_type}({', '.join(node.input)}) -> {', '.join(node.output)}"
        for node in part.graph.node
    )
    versions = ", ".join(f"{name} {version}" for name, version in repro.versions.items())
    how = "in the compiler's interpreter" if repro.lowered else "as compiled"
    command = shlex.join(["sdconv", "validate", folder.name])
    return (
        f"# {repro.label}\n\n{repro.sentence}.\n\n"
        f"`{GRAPH}` is given `{INPUTS}`; ONNX Runtime gives `{EXPECTED}` in fp32, {repro.target} "
        f"`{GOT}` in {repro.precision} ({how}).\n\n{nodes}\n\n"
        f"Run it again, from the folder above this one (exit code 1 while it fails):\n\n"
        f"    {command}\n\nMade with {versions}.\n"
    )
