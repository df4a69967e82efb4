"""`sdconv inspect --plan`: its predictions against what was measured, its verdicts, its commands.

Full-size checkpoints are headers over holes: nothing but the header may be read.
"""

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.components import available, rules
from converter.families.published import SD2, SD15, SDXL
from converter.folders import cache_folder
from examples.random_checkpoint import write_checkpoint, write_lora
from examples.small_models import SMALL
from sdconv.main import run
from targets.machine import Disk, Machine
from tests.conftest import SmallModel

Planned = dict[str, Any]

MINIATURE = Path(__file__).parents[2] / "examples" / "mini" / "mini-sd15.safetensors"

SESSION_CACHE = cache_folder()
"""Before `home` points elsewhere."""


def write_header(path: Path, architecture: Architecture) -> Path:
    """A float16 checkpoint whose tensors are holes in a sparse file."""
    header: dict[str, object] = {}
    end = 0
    for component in available(architecture):
        for rule in rules(component, architecture):
            begin, size = end, 2
            for extent in rule.stored_shape:
                size *= extent
            if rule.source in header:
                continue
            end = begin + size
            header[rule.source] = {
                "dtype": "F16",
                "shape": rule.stored_shape,
                "data_offsets": [begin, end],
            }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no toolchain."""
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def traced(home: Path, small_bundle: Bundle) -> Path:
    """Let the empty cache hold the small model's templates, traced for the bundle's sake."""
    assert small_bundle.complete
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "templates").symlink_to(SESSION_CACHE / "templates")
    return home / "cache" / "templates"


@pytest.fixture
def plan(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Planned]:
    """Plan with an empty cache and return the JSON, the exit code among it."""
    assert cache_folder() == home / "cache"

    def call(file: Path, *words: str) -> Planned:
        capsys.readouterr()  # what other commands printed
        base = ["inspect", str(file), "--plan", "-o", str(tmp_path / "o"), "--json"]
        code = run([*base, *words])
        planned: Planned = json.loads(capsys.readouterr().out)["plan"]
        return {**planned, "code": code}

    return call


@pytest.fixture
def vast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that can do anything."""
    monkeypatch.setattr(Machine, "here", lambda: Machine(10**12, 2))
    monkeypatch.setattr(Disk, "of", lambda folder: Disk(folder, 1, 10**13))


def step(planned: Planned, verb: str, component: str | None, size: str | None = None) -> Planned:
    found: list[Planned] = [
        s
        for s in planned["steps"]
        if (s["step"], s["component"], s["size"]) == (verb, component, size)
    ]
    assert len(found) == 1
    return found[0]


def close(predicted: float, measured: float, within: float = 0.25) -> bool:
    return abs(predicted - measured) <= within * measured


@pytest.mark.usefixtures("vast")
def test_recorded_figures_of_full_size_sd15(plan: Callable[..., Planned], tmp_path: Path) -> None:
    """Those of the README and of the tool's first measurements on the same kind of machine."""
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    chip = plan(file, "--target", "bm1684x", "--sizes", "512x512", "--profile", "diffusers")
    exports = [s for s in chip["steps"] if s["step"] == "export"]
    assert close(sum(s["written"] for s in exports), 4.27e9, 0.01)
    assert close(max(s["memory"] for s in exports), 0.28e9)
    export_seconds = sum(s["seconds"] for s in exports) + step(chip, "start", None)["seconds"] / 2
    assert close(export_seconds, 10.9)
    unet = step(chip, "compile", "unet", "512x512")
    assert close(unet["memory"], 5.18e9)
    assert close(unet["cached"], 11.1e6)
    assert close(unet["temporary"], 7.00e9, 0.3)
    for seconds in (82, 130):
        assert seconds / 2 < unet["seconds"] < seconds * 2
    text = step(chip, "compile", "text_encoder")
    assert close(text["cached"], 6.6e6)
    assert close(text["memory"], 1.840e9)  # of all processes together
    bound = {c: step(chip, "bind", c)["written"] for c in ("unet", "text_encoder", "vae_decoder")}
    assert close(bound["unet"], 1_734_299_648, 0.02)
    assert close(bound["text_encoder"], 498_577_408, 0.02)
    assert close(bound["vae_decoder"], 0.11e9, 0.1)
    words = ("--target", "onnxruntime", "--sizes", "512x512", "--components", "unet")
    onnx = plan(file, *words)
    compiled = step(onnx, "compile", "unet", "512x512")
    assert close(compiled["memory"], 0.17e9)
    assert 2.7 / 2 < compiled["seconds"] + step(onnx, "start", None)["seconds"] / 2 < 2.7 * 2


@pytest.mark.usefixtures("vast")
def test_judging_full_size_sd15(plan: Callable[..., Planned], tmp_path: Path) -> None:
    """On ONNX Runtime six minutes; on the emulator 614 s for a UNet run at 64x64, days at 512."""
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    words = ("--sizes", "64x64,512x512", "--profile", "sd-lcm-tpu")
    onnx = plan(file, "--target", "onnxruntime", *words)["steps"]
    seconds = [s["seconds"] for s in onnx if s["step"] == "judge" and s["size"] != "64x64"]
    assert 360 / 2 < sum(seconds) < 360 * 2
    chip = plan(file, "--target", "bm1684x", *words)
    judged = {(s["component"], s["size"]) for s in chip["steps"] if s["step"] == "judge"}
    assert ("text_encoder", None) in judged
    assert {("unet", "64x64"), ("unet", "512x512"), ("vae_encoder", "512x512")} <= judged
    note = next(note for note in chip["notes"] if "in the compiler's interpreter" in note)
    assert "unet 64x64 f16, unet 512x512 f16" in note
    assert "text_encoder" not in note
    lowered = step(chip, "judge", "unet", "512x512")
    assert 98 + 4 * 80 < lowered["seconds"] < 600
    assert 5.1e9 < lowered["memory"] < 6.5e9


@pytest.mark.usefixtures("vast")
def test_recorded_memory_of_judging_full_size_sd15(
    plan: Callable[..., Planned], tmp_path: Path
) -> None:
    """In the process of `validate`; mapped weights are not counted."""
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    onnx = plan(file, "--target", "onnxruntime", "--sizes", "512x512")
    for component, size, measured in (
        ("text_encoder", None, 0.317e9),
        ("unet", "512x512", 2.621e9),
        ("vae_encoder", "512x512", 2.250e9),
    ):
        assert close(step(onnx, "judge", component, size)["memory"], measured), (component, size)
    assert not any("judging" in note for note in onnx["notes"])
    chip = plan(file, "--target", "bm1684x", "--sizes", "64x64")
    assert close(step(chip, "judge", "text_encoder")["memory"], 0.286e9)
    assert any("the chip's emulator takes in memory" in note for note in chip["notes"])


def test_judging_holds_what_was_predicted(
    plan: Callable[..., Planned], diffusers_bundle: Bundle, small_model: SmallModel, tmp_path: Path
) -> None:
    """The small model is none of those that the constants are from."""
    sizes = "384x384"
    words = ("--target", "onnxruntime", "--sizes", sizes, "--components", "unet,vae_decoder")
    planned = plan(small_model.checkpoint, *words)
    compiling = [
        "compile",
        "-n",
        str(diffusers_bundle.folder),
        "-o",
        str(tmp_path),
        "--no-validate",
    ]
    assert run([*compiling, *words]) == 0
    code = (
        "import re, sys, threading, time\nfrom sdconv.main import run\n"
        "peak = 0\n"
        "def watch():\n"
        "    global peak\n"
        "    while True:\n"
        "        status = open('/proc/self/status').read()\n"
        "        peak = max(peak, int(re.search(r'RssAnon:\\s+(\\d+)', status)[1]) * 1024)\n"
        "        time.sleep(0.003)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "assert run(sys.argv[1:]) == 0\n"
        "print(peak, file=sys.stderr)\n"
    )
    judging = [sys.executable, "-c", code, "validate", str(tmp_path)]
    done = subprocess.run(judging, capture_output=True, text=True, check=True)
    judged = [s["memory"] for s in planned["steps"] if s["step"] == "judge"]
    measured = int(done.stderr.split()[-1])
    assert close(max(judged), measured), (judged, measured)


@pytest.mark.usefixtures("vast")
def test_recorded_figures_of_full_size_sdxl(plan: Callable[..., Planned], tmp_path: Path) -> None:
    file = write_header(tmp_path / "sdxl.safetensors", SDXL)
    chip = plan(file, "--target", "bm1684x", "--sizes", "1024x1024", "--components", "unet")
    unet = step(chip, "compile", "unet", "1024x1024")
    assert close(unet["memory"], 15.3e9)
    assert close(step(chip, "bind", "unet")["written"], 5.17e9, 0.02)
    assert 206 / 2 < unet["seconds"] < 206 * 2
    assert chip["profile"] == "diffusers"
    assert any("ports of profile diffusers" in note for note in chip["notes"])


@pytest.mark.usefixtures("vast")
def test_recorded_figures_of_small_models(
    plan: Callable[..., Planned], small_model: SmallModel
) -> None:
    """What lay in the cache folder during and after real compilations by tpu-mlir 1.30.2."""
    words = ("--target", "bm1684x", "--sizes", "64x64,512x512")
    small, mini = plan(small_model.checkpoint, *words), plan(MINIATURE, *words)
    for planned, component, size, most, kept, memory in (
        (small, "text_encoder", None, 71.4e6, 5.75e6, 0.40e9),
        (small, "unet", "512x512", 123.5e6, 9.8e6, 0.47e9),
        (small, "vae_decoder", "512x512", 23.5e6, 8.8e6, 0.38e9),
        (mini, "text_encoder", None, 71.4e6, 5.75e6, 0.38e9),
        (mini, "unet", "64x64", 79.8e6, 6.9e6, 0.43e9),
        (mini, "vae_encoder", "64x64", 13.6e6, 5.8e6, 0.36e9),
        (mini, "vae_decoder", "64x64", 21.5e6, 5.8e6, 0.37e9),
    ):
        predicted = step(planned, "compile", component, size)
        assert close(predicted["cached"] + predicted["temporary"], most), (component, size)
        assert close(predicted["cached"], kept), (component, size)
        assert close(predicted["memory"], memory), (component, size)
    two = plan(MINIATURE, "--target", "bm1684x", "--sizes", "128x64,64x128")
    assert close(step(two, "bind", "unet")["written"], 20.05e6)
    assert close(step(two, "bind", "vae_decoder")["written"], 8.04e6)
    assert close(step(two, "bind", "vae_encoder")["written"], 7.25e6)


def test_an_export_writes_and_holds_what_was_predicted(
    traced: Path, plan: Callable[..., Planned], small_model: SmallModel, tmp_path: Path
) -> None:
    assert traced.is_symlink()
    words = ("--target", "onnxruntime", "--sizes", "64x64", "--profile", "sd-lcm-tpu")
    planned = plan(small_model.checkpoint, *words)
    assert planned["possible"]
    assert planned["code"] == 0
    code = (
        "import re, sys\nfrom sdconv.main import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "status = open('/proc/self/status').read()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
    )
    export = [sys.executable, "-c", code, *planned["commands"][0][1:]]
    done = subprocess.run(export, capture_output=True, text=True, check=True)
    peak = int(done.stderr.split()[-1]) * 1024
    predicted = max(s["memory"] for s in planned["steps"] if s["step"] == "export")
    assert close(predicted, peak)
    bundle = Bundle.load(tmp_path / "o" / "bundle")
    for name, component in bundle.components.items():
        written = (bundle.folder / component.graph).stat().st_size + component.weights_bytes
        assert close(step(planned, "export", name)["written"], written, 0.02)

    after = plan(small_model.checkpoint, *words)
    assert all(s["reused"] for s in after["steps"] if s["step"] == "export")
    assert not any(s["reused"] for s in after["steps"] if s["step"] == "compile")
    assert [c[1] for c in after["commands"]] == ["compile"]
    assert run([*after["commands"][0][1:], "--no-validate"]) == 0

    finished = plan(small_model.checkpoint, *words)
    assert all(s["reused"] for s in finished["steps"] if s["step"] in ("export", "compile"))
    assert finished["total"]["kept"] == 0
    more = plan(small_model.checkpoint, *words[:3], "64x64,128x64", *words[4:])
    compiled = [s for s in more["steps"] if s["step"] == "compile"]
    assert {s["size"] for s in compiled if not s["reused"]} == {"128x64"}
    assert {s["size"] for s in compiled if s["reused"]} == {None, "64x64"}
    other = plan(small_model.checkpoint, *words[:4], "--profile", "diffusers")
    assert not any(s["reused"] for s in other["steps"])


def test_a_plan_reads_headers_alone(home: Path, tmp_path: Path) -> None:
    assert not home.exists()
    file = write_header(tmp_path / "sdxl.safetensors", SDXL)
    code = (
        "import sys\nfrom sdconv.main import run\n"
        "run(sys.argv[1:])\n"
        "heavy = {'torch', 'diffusers', 'onnxruntime'} & set(sys.modules)\n"
        "print(f'heavy: {sorted(heavy)}', file=sys.stderr)\n"
        "read = next(l for l in open('/proc/self/io') if l.startswith('rchar'))\n"
        "print(read.split()[1], file=sys.stderr)\n"
    )
    words = ["inspect", str(file), "--plan", "-t", "onnxruntime", "--sizes", "1024x1024"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    modules, read = done.stderr.splitlines()[-2:]
    assert modules == "heavy: []"
    assert int(read) < 60e6  # the file is 6.9 GB; Python's own modules are most of this
    assert "sdconv export" in done.stdout
    assert not home.exists()


def test_what_is_missing_is_named_in_notes_and_commands(
    plan: Callable[..., Planned], tmp_path: Path
) -> None:
    file = write_header(tmp_path / "no vae.safetensors", replace(SD2, vae=None))
    planned = plan(file, "--target", "onnxruntime", "--sizes", "768x512")
    assert planned["commands"][0][-2:] == ["--vae", "FILE"]
    assert any("no vae in the file" in note for note in planned["notes"])
    assert any("--prediction" in note for note in planned["notes"])
    assert {s["component"] for s in planned["steps"]} == {None, "text_encoder", "unet"}
    whole = plan(file, "-t", "onnxruntime", "--sizes", "768x512", "--components", "unet")
    assert "--vae" not in whole["commands"][0]


def test_a_controlnet_is_a_component(plan: Callable[..., Planned]) -> None:
    net = MINIATURE.with_name("mini-controlnet.safetensors")
    words = ("--target", "onnxruntime", "--sizes", "64x64", "-c", str(net))
    planned = plan(MINIATURE, *words)
    stored = net.stat().st_size * 2  # float16 there, float32 in the bundle
    assert close(step(planned, "export", "controlnet")["written"], stored, 0.15)
    assert step(planned, "judge", "controlnet", "64x64")["seconds"] > 0
    assert str(net) in planned["commands"][0]


def test_everything_that_export_takes_is_planned_and_printed(
    traced: Path, plan: Callable[..., Planned], small_model: SmallModel, tmp_path: Path
) -> None:
    assert traced.is_symlink()
    embedding = tmp_path / "toy.safetensors"
    safetensors.numpy.save_file({"emb_params": np.ones((2, 64), np.float32)}, embedding)
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, SMALL, seed=7)
    asked = [
        "--vae", str(other), "-l", f"{small_model.lora}:0.5,down.1=0.3",
        "--clip-skip", "2", "--embedding", f"<toy>={embedding}", "--link",
        "--prediction", "epsilon", "--components", "text_encoder,unet,vae_decoder",
    ]  # fmt: skip
    words = ("--target", "onnxruntime", "--sizes", "64x64", "--profile", "diffusers")
    planned = plan(small_model.checkpoint, *words, *asked)
    (line,) = planned["adapters"]
    assert line.startswith(f"{small_model.lora}: LoRA, scale 0.5,down.1=0.3, ")
    assert re.search(r"keys used, \d+ for what is not exported; merged into \d+ tensors", line)
    command = planned["commands"][0]
    assert all(word in command for word in asked if word != "<toy>")
    assert run(command[1:]) == 0
    bundle = Bundle.load(tmp_path / "o" / "bundle")
    for name, component in bundle.components.items():
        graph, weights = (bundle.folder / file for file in (component.graph, component.weights))
        written = sum(file.stat().st_size for file in (graph, weights) if file.exists())
        assert close(step(planned, "export", name)["written"], written, 0.2), name
    after = plan(small_model.checkpoint, *words, *asked)
    assert [c[1] for c in after["commands"]] == ["compile"]
    gathered = [s for s in after["steps"] if s["step"] == "gather"]
    assert [s["component"] for s in gathered] == list(bundle.components)
    before = sum(f.stat().st_size for f in (cache_folder() / "weights").rglob("*") if f.is_file())
    assert before == 0
    assert run([*planned["commands"][1][1:], "--no-validate"]) == 0
    cached = sum(f.stat().st_size for f in (cache_folder() / "weights").rglob("*.data"))
    assert close(sum(s["cached"] for s in gathered), cached, 0.02)


def test_what_was_exported_before_is_found_with_its_loras(
    traced: Path, plan: Callable[..., Planned], small_model: SmallModel
) -> None:
    assert traced.is_symlink()
    ports = ("--profile", "diffusers", "--components", "unet")
    words = ("--target", "onnxruntime", "--sizes", "64x64", *ports)
    first = plan(small_model.checkpoint, *words, "-l", f"{small_model.lora}:0.8")
    assert run(first["commands"][0][1:]) == 0
    again = plan(small_model.checkpoint, *words, "-l", f"{small_model.lora}:0.8")
    assert step(again, "export", "unet")["reused"]
    for other in ([], ["-l", f"{small_model.lora}:0.7"]):
        changed = plan(small_model.checkpoint, *words, *other)
        assert not step(changed, "export", "unet")["reused"]
    # All graphs and hashes are known now, so a linked export is found too.
    linked = plan(small_model.checkpoint, *words, "--link")
    assert run(linked["commands"][0][1:]) == 0
    found = plan(small_model.checkpoint, *words, "--link")
    assert step(found, "export", "unet")["reused"]
    assert not step(found, "gather", "unet")["reused"]
    assert run([*found["commands"][0][1:], "--no-validate"]) == 0
    assert step(plan(small_model.checkpoint, *words, "--link"), "gather", "unet")["reused"]
    assert not step(plan(small_model.checkpoint, *words), "export", "unet")["reused"]


@pytest.mark.usefixtures("vast")
def test_a_lora_on_full_size_sd15(plan: Callable[..., Planned], home: Path, tmp_path: Path) -> None:
    """README: 0.49 GB with one of rank 16 on every linear layer of the transformers."""
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    lora = tmp_path / "lora.safetensors"
    write_lora(lora, SD15, rank=16)
    words = ("--target", "onnxruntime", "--sizes", "512x512")
    plain, merged = plan(file, *words), plan(file, *words, "-l", str(lora))
    unets = [step(planned, "export", "unet") for planned in (plain, merged)]
    assert close(unets[1]["memory"], 0.49e9)
    assert unets[0]["memory"] < unets[1]["memory"]
    # That of another scale: 6.6 s of processor time, of which 2.1 for finding out, 2.9 for writing.
    assert 1.6 / 2 < unets[1]["seconds"] - unets[0]["seconds"] < 1.6 * 2
    assert unets[0]["written"] == unets[1]["written"]
    (line,) = merged["adapters"]
    read = re.search(r"adds (\d+) MB of reading", line)
    assert read is not None and close(int(read[1]) * 1e6, lora.stat().st_size, 0.05)
    assert not home.exists()  # not even its hash was taken


@pytest.mark.usefixtures("vast")
@pytest.mark.parametrize(
    ("precision", "unet", "text"),
    [("f16", 1.734e9, 252e6), ("w8f16", 1.47e9, 172e6), ("w4bf16", 1.34e9, 129e6)],
)
def test_recorded_sizes_of_fewer_bits(
    precision: str, unet: float, text: float, plan: Callable[..., Planned], tmp_path: Path
) -> None:
    """What tpu-mlir made of full-size SD1.5."""
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    chosen = f"unet={precision},text_encoder={precision}"
    planned = plan(file, "--target", "bm1684x", "--sizes", "512x512", "--precision", chosen)
    assert close(step(planned, "bind", "unet")["written"], unet, 0.02)
    assert close(step(planned, "bind", "text_encoder")["written"], text, 0.02)


@pytest.mark.usefixtures("vast")
def test_recorded_figures_of_mnn(plan: Callable[..., Planned], tmp_path: Path) -> None:
    """What MNN's converter and binding took and left (benchmarks/mnn.md)."""
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    words = ("--target", "mnn", "--sizes", "512x512,768x512")
    sizes = {"f16": (246.5e6, 1720e6), "w8": (248.2e6, 909e6), "w4": (205.7e6, 479.5e6)}
    for precision, (text, unet) in sizes.items():
        chosen = f"unet={precision},text_encoder={precision}"
        planned = plan(file, *words, "--precision", chosen)
        assert close(step(planned, "bind", "unet")["written"], unet, 0.02)
        assert close(step(planned, "bind", "text_encoder")["written"], text, 0.02)
    converted = step(planned, "compile", "unet", "512x512")
    assert close(converted["memory"], 7.47e9)
    assert 87 / 2 < converted["seconds"] < 87 * 2
    assert step(planned, "compile", "unet", "768x512")["reused"]  # one file serves both


@pytest.mark.usefixtures("vast")
def test_int8_is_calibrated_before_it_is_compiled(
    plan: Callable[..., Planned], tmp_path: Path
) -> None:
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    words = ("--target", "bm1684x", "--sizes", "512x512", "--components", "unet")
    planned = plan(file, *words, "--precision", "unet=int8-mixed")
    assert close(step(planned, "bind", "unet")["written"], 0.969e9, 0.02)
    assert step(planned, "compile", "unet", "512x512")["cached"] > 0.86e9  # with its weights
    calibrate, compile_ = planned["commands"][-2:]
    data = str(tmp_path / "o" / "calibration")
    assert calibrate[:2] == ["sdconv", "calibrate"]
    assert calibrate[-2:] == ["-o", data]
    assert compile_[compile_.index("--calibration") + 1] == data
    assert any("drawing calibration data" in note for note in planned["notes"])


def test_a_missing_toolchain_is_the_first_command(
    plan: Callable[..., Planned], small_model: SmallModel
) -> None:
    planned = plan(small_model.checkpoint, "--target", "bm1684x", "--sizes", "64x64")
    assert planned["code"] == 1
    assert "tpu-mlir 1.30.2 is not installed" in planned["problems"][0]
    assert planned["commands"][0] == ["sdconv", "toolchain", "install", "tpu-mlir"]
    assert [c[1] for c in planned["commands"][1:]] == ["export", "compile"]


def test_without_torch_nothing_is_traced_or_judged(
    plan: Callable[..., Planned],
    small_model: SmallModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    words = ("--target", "onnxruntime", "--sizes", "64x64")
    unknown = plan(small_model.checkpoint, *words)
    assert unknown["code"] == 1
    assert "tracing a new architecture needs torch" in unknown["problems"][0]
    known = plan(write_header(tmp_path / "sd15.safetensors", SD15), *words)
    assert any("judging needs torch" in note for note in known["notes"])
    assert not any("torch" in problem for problem in known["problems"])


def test_an_unknown_architecture_costs_a_trace(
    plan: Callable[..., Planned], small_model: SmallModel
) -> None:
    planned = plan(small_model.checkpoint, "--target", "onnxruntime", "--sizes", "64x64")
    traced = step(planned, "trace", "unet")
    assert 57 / 2 < traced["seconds"] < 106 * 2
    assert close(traced["memory"], 0.85e9)


def test_too_little_memory_is_a_problem_and_says_what_fits(
    plan: Callable[..., Planned],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Machine, "here", lambda: Machine(6 * 10**9, 2))
    monkeypatch.setattr(Disk, "of", lambda folder: Disk(folder, 1, 10**13))
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    words = ("--target", "bm1684x", "--sizes", "512x512", "--components", "unet")
    planned = plan(file, *words, "--precision", "unet=f32")
    memory = next(p for p in planned["problems"] if "of memory" in p)
    assert re.search(r"compile unet 512x512 f32 needs 10\.\d+ GB of memory and 6\.00 GB", memory)
    assert memory.endswith("it fits with --precision unet=f16")
    assert not any("of memory" in p for p in plan(file, *words)["problems"])
    monkeypatch.setattr(Machine, "here", lambda: Machine(3 * 10**9, 2))
    (judging,) = plan(file, "-t", "onnxruntime", "--sizes", "512x512")["problems"]
    assert judging.startswith("judge vae_decoder 512x512 f32 needs 4.")
    assert judging.endswith("compile leaves judging out with --no-validate")
    # More sizes take no more: they are compiled one after another, and binding takes little.
    monkeypatch.setattr(Machine, "here", lambda: Machine(6 * 10**9, 2))
    three = plan(file, *words[:3], "512x512,768x512,512x768", *words[4:])["problems"]
    assert not any("of memory" in p for p in three)


def test_too_little_disk_is_a_problem_and_says_what_fits(
    plan: Callable[..., Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_header(tmp_path / "sd15.safetensors", SD15)
    words = ("--target", "bm1684x", "--components", "unet", "--sizes", "512x512,768x512")

    def disks(output: int, cache: int, *, one: bool) -> None:
        def of(folder: Path) -> Disk:
            is_cache = "cache" in folder.parts
            device = 1 if one or is_cache else 2
            return Disk(folder, device, cache if is_cache else output)

        monkeypatch.setattr(Disk, "of", of)

    # One disk: bundle 3.4, then the compiler's copies 8.7, and when they are gone the bmodel 1.7.
    disks(13 * 10**9, 13 * 10**9, one=True)
    assert not [p for p in plan(file, *words)["problems"] if "of disk" in p]
    disks(12 * 10**9, 12 * 10**9, one=True)
    shared = [p for p in plan(file, *words)["problems"] if "of disk" in p]
    assert len(shared) == 1
    # Two disks: bundle and bmodel lie on one, the copies on the cache's.
    disks(6 * 10**9, 9 * 10**9, one=False)
    assert not [p for p in plan(file, *words)["problems"] if "of disk" in p]
    disks(5 * 10**9, 8 * 10**9, one=False)
    output, cache = [p for p in plan(file, *words)["problems"] if "of disk" in p]
    assert "with -o" in output
    assert "SDCONV_HOME" in cache


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--plan", "--target", "onnxruntime"], "a plan is for a target and sizes"),
        (["--target", "onnxruntime", "--sizes", "64x64"], "a plan is for a target and sizes"),
        (["--plan", "-t", "nope", "--sizes", "64x64"], "unknown target"),
        (["--plan", "-t", "bm1684x", "--sizes", "72x64"], "multiples of 64"),
        (["--plan", "-t", "onnxruntime", "--sizes", "70x64"], "multiples of 8"),
        (["--plan", "-t", "bm1684x", "--sizes", "64x64", "--precision", "unet=f8"], "bf16"),
        (["--plan", "-t", "bm1684x", "--sizes", "64x64", "--components", "x"], "unknown component"),
        (["--plan", "-t", "bm1684x", "--sizes", "64x64", "--profile", "x"], "unknown profile"),
        (["--plan", "-t", "bm1684x", "--sizes", "64x64", "--clip-skip", "9"], "--clip-skip 9"),
        (["--clip-skip", "2"], "belongs to a plan"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], reason: str, small_model: SmallModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(small_model.checkpoint), *words]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


def test_a_lora_that_does_not_fit_is_refused_as_by_export(
    plan: Callable[..., Planned],
    small_model: SmallModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = tmp_path / "wide.safetensors"
    write_lora(wide, SD15)
    words = ["--plan", "-t", "onnxruntime", "--sizes", "64x64", "-l", str(wide)]
    assert run(["inspect", str(small_model.checkpoint), *words]) == 2
    assert "keys do not fit this checkpoint" in capsys.readouterr().err
    (line,) = plan(small_model.checkpoint, *words[1:], "--allow-unused")["adapters"]
    assert re.search(r"0 of \d+ keys used, \d+ do not fit", line)


def test_what_cannot_be_exported_is_refused_as_by_export(
    small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--plan", "-t", "bm1684x", "--sizes", "64x64"]
    assert run(["inspect", str(small_model.lora), *words]) == 2
    assert "pass a LoRA with -l" in capsys.readouterr().err
    file = write_header(tmp_path / "sdxl.safetensors", SDXL)
    assert run(["inspect", str(file), *words, "--profile", "sd-lcm-tpu"]) == 2
    assert "--profile diffusers" in capsys.readouterr().err


def test_the_table_names_every_step_and_the_next_command(
    home: Path, small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--plan", "-t", "onnxruntime", "--sizes", "64x64", "--profile", "sd-lcm-tpu"]
    assert run(["inspect", str(small_model.checkpoint), *words, "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for expected in (
        "family sd15",
        "export text_encoder",
        "compile unet 64x64 f32",
        "all of it",
        "this machine can do it",
        "in place: everything that must be installed, 0 of 4 templates, 0 of 4 exports",
        f"next: sdconv export -u {small_model.checkpoint}",
        f"then: sdconv compile -n {tmp_path / 'bundle'} --target onnxruntime",
        f"{len(os.sched_getaffinity(0))} cores",
    ):
        assert expected in out
    assert not home.exists()
