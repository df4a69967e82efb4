"""What a phone needs to run artifacts and to say whether it does so rightly.

A folder with TVM's build options, a program that loads and runs, scripts that build and push, and a
self-test: every form of CLML kernel that is used, and what MNN computes, alone, and every component
whole, with known answers. Weights are hard links to the artifacts' own.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import InputError
from converter.files import link_or_copy, write_json
from converter.progress import Event, Progress
from converter.weights import Array
from targets.base import Artifact, Target
from targets.manifest import Manifest
from targets.tvm.binding import DATA_FILE, read_index
from targets.tvm.compilation import CLML_FILE
from targets.tvm.host_operator import MODEL, SYMBOL, open_part, weights_file
from targets.tvm.inside import clml_reference
from targets.tvm.program import PROGRAM_FILE, HostOperator, Program

PHONE = Path(__file__).with_name("phone")

SUFFIXES = {"float32": "qfp32", "float16": "qfp16", "int32": "i32", "int64": "i64"}
"""What raw, header-less, little-endian files of a dtype are called."""

KERNEL_DB = 45.0
"""One kernel in float16 sums a few hundred products in 11 bits: 60 dB and more are usual."""
PROGRAM_DB = {"f16": 35.0, "f32": 80.0}
"""As `validate.thresholds` asks of a component."""


def write_phone_bundle(
    manifest: Manifest, target: Target, output: Path, progress: Progress
) -> list[str]:
    """Write the folder `output`; returns the names of the programs in it.

    Runs every artifact once on this machine for its answers. Raises InputError where `output` holds
    anything that is not of this kind, ToolchainError where a twin cannot be run.
    """
    if output.exists() and any(output.iterdir()) and not (output / "run.cc").is_file():
        raise InputError(f"{output}: holds something else: name a new folder")
    output.mkdir(parents=True, exist_ok=True)
    (output / "kernels").mkdir(exist_ok=True)
    for file in PHONE.iterdir():
        shutil.copy2(file, output / file.name)
    names = []
    kernels: dict[str, Mapping[str, Any]] = {}
    for done, artifact in enumerate(manifest.artifacts):
        progress(Event("phone", done / len(manifest.artifacts), artifact.label))
        name = "-".join(str(p) for p in (artifact.component, artifact.size) if p)
        folder = output / "programs" / name
        graphs = _write_program(manifest, artifact, target, folder)
        names.append(name)
        for form, graph in _kernels(graphs):
            smaller = kernels.get(form)
            if smaller is None or _work(graph) < _work(smaller):
                kernels[form] = graph
    for form, graph in kernels.items():
        _write_kernel(form, graph, output / "kernels" / form)
    progress(Event("phone", 1.0))
    return names


def _write_program(
    manifest: Manifest, artifact: Artifact, target: Target, folder: Path
) -> list[Mapping[str, Any]]:
    """One component: its library, weights, inputs and answers. Returns CLML's graphs."""
    home = (manifest.folder / artifact.path).parent
    stem = str(artifact.size or "any")
    program = Program.load(home / f"{stem}.{PROGRAM_FILE}")
    clml = home / f"{stem}.{CLML_FILE}"
    graphs = json.loads(clml.read_text()) if clml.is_file() else []
    index = read_index(home)
    inputs = {port.name: _random(port.shape, port.dtype) for port in program.inputs}
    with target.open(artifact, manifest.folder) as runner:
        outputs = runner.infer(inputs)
    models = []
    if program.host is not None:
        part = home / f"{stem}.{MODEL}"
        _write_part(program.host, part, folder.parents[1] / "kernels" / f"attention-{folder.name}")
        models.append(_model(program.host, part, folder))
    link_or_copy(manifest.folder / artifact.path, folder / "library.tar")
    link_or_copy(home / DATA_FILE, folder / DATA_FILE)
    run = {
        "library": "library.so",
        "parameters_file": DATA_FILE,
        "parameters": [_place(index[p.name]) for p in program.parameters],
        "graphs": [_graph(g, index) for g in graphs],
        "models": models,
        "inputs": [_save(folder, name, array) for name, array in inputs.items()],
        "outputs": [
            {**_save(folder, name, array), "psnr_db": PROGRAM_DB[artifact.precision]}
            for name, array in outputs.items()
        ],
    }
    write_json(folder / "run.json", run)
    return graphs


def _model(host: HostOperator, part: Path, folder: Path) -> dict[str, Any]:
    """Put MNN's model and its weights into `folder` and describe it."""
    link_or_copy(part, folder / MODEL)
    link_or_copy(weights_file(part), weights_file(folder / MODEL))
    return {
        "symbol": SYMBOL,
        "model": MODEL,
        "weights_nbytes": weights_file(part).stat().st_size,
        "takes": host.takes.name,
        "gives": host.gives.name,
    }


def _write_part(host: HostOperator, part: Path, folder: Path) -> None:
    """What MNN computes of a program, alone, with a random input and what it must give."""
    given = _random(host.takes.shape, host.takes.dtype)
    with open_part(part) as runner:
        answer = runner.infer({host.takes.name: given})[host.gives.name]
    run = {
        "library": "",
        "parameters_file": "",
        "parameters": [],
        "graphs": [],
        "models": [_model(host, part, folder)],
        "inputs": [_save(folder, host.takes.name, given)],
        "outputs": [{**_save(folder, host.gives.name, answer), "psnr_db": PROGRAM_DB["f32"]}],
    }
    write_json(folder / "run.json", run)


def _graph(graph: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "symbol": graph["symbol"],
        "graph": json.dumps(graph["graph"], separators=(",", ":")),
        "constants": [_place(index[name]) for name in graph["constants"]],
    }


def _place(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "dtype", "shape", "nbytes")
    return {**{name: record[name] for name in names}, "offset": record["byteOffset"]}


def _save(folder: Path, name: str, array: Array) -> dict[str, Any]:
    """Write raw numbers and describe the file."""
    file = f"{name}.{SUFFIXES[array.dtype.name]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
    return {
        "name": name,
        "file": file,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "nbytes": array.nbytes,
        "offset": 0,
    }


def _random(shape: Sequence[int], dtype: str) -> Array:
    rng = np.random.default_rng(len(shape))
    if dtype.startswith("int"):
        return np.asarray(rng.integers(0, 1000, shape).astype(dtype))
    return np.asarray(rng.standard_normal(shape).astype(dtype))


def _kernels(graphs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every kernel of every graph, as a graph of its own, under the name of its form."""
    for described in graphs:
        nodes = described["graph"]["nodes"]
        for node in nodes:
            if node["op"] != "kernel":
                continue
            given = [nodes[place] for place, _, _ in node["inputs"]]
            bare = [
                {
                    "op": "const" if one["op"] == "const" else "input",
                    "name": f"{'weight' if one['op'] == 'const' else 'input'}_{i}",
                    "attrs": {key: one["attrs"][key] for key in ("shape", "dtype")},
                }
                for i, one in enumerate(given)
            ]
            alone = {**node, "inputs": [[i, 0, 0] for i in range(len(bare))]}
            count = len(bare)
            yield (
                _form(node, bare),
                {
                    "nodes": [*bare, alone],
                    "arg_nodes": list(range(count)),
                    "heads": [[count, 0, 0]],
                    "node_row_ptr": list(range(count + 2)),
                },
            )


def _form(node: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> str:
    """What tells kernels apart that a device may treat differently."""
    attrs = node["attrs"]
    words = [node["name"], attrs["dtype"][0], *(one["op"] for one in given[:4])]
    if "strides" in attrs:
        kernel = given[1]["attrs"]["shape"][0][2:]
        words += [f"{kernel[0]}x{kernel[1]}", f"stride{attrs['strides'][0]}"]
    if node["name"] == "reshape":
        words += [f"{len(given[0]['attrs']['shape'][0])}to{len(attrs['shape'][0])}"]
    if node["name"] == "concatenate":
        words = words[:2]
    return "-".join(words)


def _work(graph: Mapping[str, Any]) -> int:
    return sum(int(np.prod(node["attrs"]["shape"][0])) for node in graph["nodes"])


def _write_kernel(form: str, graph: Mapping[str, Any], folder: Path) -> None:
    """One kernel with random inputs, and what it must give."""
    bare = graph["nodes"][:-1]
    rng = np.random.default_rng(0)
    arrays = {
        node["name"]: rng.standard_normal(node["attrs"]["shape"][0]).astype(
            node["attrs"]["dtype"][0]
        )
        for node in bare
    }
    inputs = {n["name"]: arrays[n["name"]] for n in bare if n["op"] == "input"}
    constants = {n["name"]: arrays[n["name"]] for n in bare if n["op"] == "const"}
    (answer,) = clml_reference.run(graph, constants, list(inputs.values()))
    places, offset = [], 0
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / DATA_FILE).open("wb") as file:
        for name, array in constants.items():
            file.write(array.tobytes())
            places.append(
                {
                    "name": name,
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "nbytes": array.nbytes,
                    "offset": offset,
                }
            )
            offset += array.nbytes
    symbol = "sdconv_kernel_" + form.replace("-", "_").replace(".", "_")
    text = json.dumps(graph, separators=(",", ":"))
    run = {
        "library": "",
        "parameters_file": DATA_FILE,
        "parameters": [],
        "graphs": [{"symbol": symbol, "graph": text, "constants": places}],
        "models": [],
        "inputs": [_save(folder, name, array) for name, array in inputs.items()],
        "outputs": [{**_save(folder, "answer", answer), "psnr_db": KERNEL_DB}],
    }
    write_json(folder / "run.json", run)
