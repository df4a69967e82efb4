"""TVM's targets against torch: every component of a small model, on whatever can run here."""

import json
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.bundle import Bundle
from converter.interface import Interface
from converter.modules import load_module
from converter.progress import silent
from converter.sizes import Size
from converter.weights import Array
from passes.cut_out_attention import GIVES
from targets.base import Artifact
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.mnn.toolchain import Mnn
from targets.registry import get_target
from targets.tvm.compilation import CLML_FILE
from targets.tvm.host_operator import MODEL, weights_file
from targets.tvm.opencl_device import opencl_device, wheel_flags
from targets.tvm.phone_bundle import PHONE, write_phone_bundle
from targets.tvm.runner import TvmRunner
from targets.tvm.toolchain import Tvm

pytestmark = pytest.mark.slow

SIZE, TINY = Size(64, 64), Size(16, 16)
TOLERANCE = 2e-5
"""Two runs of float32 arithmetic in different orders, relative to the largest value."""
ELF_FOR_AARCH64 = (b"\x7fELF", 1, 183)
"""What an object file begins with: magic, relocatable, machine."""
STAND_IN = Path(__file__).with_name("mnn_stand_in")
RUN_ONCE = Path(__file__).parent / "mnn" / "inside" / "run_once.py"
HALF = 2e-2
"""Of float16, with 11 bits, after a whole network: 35 dB, the floor of its verdict."""


@pytest.fixture(scope="module")
def tvm() -> Tvm:
    """The installed toolchain, and MNN for what the host runs; installs them where they are not."""
    for toolchain in (Mnn(), Tvm()):
        toolchain.install(silent)
        assert toolchain.problem() is None
    return Tvm()


def random_inputs(interface: Interface, size: Size | None) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    inputs: dict[str, Array] = {}
    for port in interface.inputs:
        shape = port.at(1, size)
        if port.name == "timestep":
            inputs[port.name] = np.full(shape, 301, port.dtype)
        elif port.dtype.startswith("int"):
            inputs[port.name] = rng.integers(0, 49407, shape).astype(port.dtype)
        else:
            inputs[port.name] = rng.standard_normal(shape).astype(port.dtype)
    return inputs


def error(bundle: Bundle, artifact: Artifact, folder: Path, device: str | None = None) -> float:
    """How far the artifact's first output is from torch's, relative to its largest value."""
    component = bundle.components[artifact.component]
    inputs = random_inputs(component.interface, artifact.size)
    with get_target(artifact.target).open(artifact, folder) as runner:
        found = runner.infer(inputs)
        if device is not None:
            assert isinstance(runner, TvmRunner)
            assert device in runner.device
    with torch.inference_mode():
        tensors = [torch.from_numpy(array) for array in inputs.values()]
        results = load_module(bundle, artifact.component)(*tensors)
    wanted = (results if isinstance(results, torch.Tensor) else results[0]).numpy()
    output = found[component.interface.outputs[0].name]
    assert output.dtype == np.float32
    assert output.shape == wanted.shape
    return float(np.abs(output - wanted).max() / np.abs(wanted).max())


def compiled(
    bundle: Bundle,
    folder: Path,
    target: str,
    precision: str,
    *components: str,
    size: Size = SIZE,
) -> Manifest:
    names = components or tuple(bundle.components)
    request = CompileRequest(
        bundle.folder,
        target,
        (size,),
        folder,
        dict.fromkeys(names, precision),
        components=components or None,
    )
    return compile_bundle(request)


def test_every_component_on_this_processor(
    tvm: Tvm, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    del tvm
    manifest = compiled(diffusers_bundle, tmp_path, "tvm", "f32")
    assert {a.component for a in manifest.artifacts} == {*diffusers_bundle.components}
    for artifact in manifest.artifacts:
        assert artifact.how == "bound"
        assert error(diffusers_bundle, artifact, tmp_path) < TOLERANCE
    again = compiled(diffusers_bundle, tmp_path, "tvm", "f32")
    assert all(artifact.reused for artifact in again.artifacts)


def test_clmls_graphs_by_definition_and_the_rest_in_opencl(
    tvm: Tvm, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    manifest = compiled(diffusers_bundle, tmp_path, "adreno-clml", "f32", "unet")
    (unet,) = manifest.artifacts
    assert error(diffusers_bundle, unet, tmp_path, "pthread") < TOLERANCE
    assert unet.placement is not None
    assert unet.placement.share > 0.99
    assert unet.placement.graphs == 132
    written = (tmp_path / unet.path).with_name(f"{SIZE}.{CLML_FILE}").read_text()
    assert len(json.loads(written)) == 132
    assert Manifest.load(tmp_path).artifacts == manifest.artifacts


@pytest.mark.parametrize("target", ["adreno-clml", "adreno-opencl"])
def test_half_precision(tvm: Tvm, diffusers_bundle: Bundle, tmp_path: Path, target: str) -> None:
    """And the host runs the attention of a VAE."""
    del tvm
    part = "vae_decoder" if target == "adreno-clml" else "text_encoder"
    (artifact,) = compiled(diffusers_bundle, tmp_path, target, "f16", part).artifacts
    assert error(diffusers_bundle, artifact, tmp_path) < HALF
    assert artifact.placement is not None
    hosted = [row for row in artifact.placement.rows if row.operations and row.where == "the host"]
    assert [row.operator for row in hosted] == (["attention"] if part == "vae_decoder" else [])
    assert artifact.placement.library == ("CLML" if target == "adreno-clml" else "OpenCL")
    rest = sum(row.operations for row in hosted) / artifact.placement.operations
    assert artifact.placement.share == pytest.approx(1 - rest)
    model = f"{target}/{part}/{SIZE}.{MODEL}"
    assert (model in artifact.files) == (part == "vae_decoder")
    assert (f"{model}.weight" in artifact.files) == (part == "vae_decoder")
    with tarfile.open(tmp_path / artifact.path) as objects:
        headers = [member.read(20) for name in objects if (member := objects.extractfile(name))]
    assert len(headers) == 2
    assert all(struct.unpack("<4s12xHH", header) == ELF_FOR_AARCH64 for header in headers)


@pytest.fixture(scope="module")
def program(tvm: Tvm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phone's program for this machine; the library in PLUGIN gives it what the phone has.

    MNN's headers are no part of its wheel: what stands in for them has MNN's Python answer.
    """
    path = tmp_path_factory.mktemp("phone") / "run"
    command: list[str | Path] = [str(tvm.compiler), "-std=c++17", PHONE / "run.cc", "-o", path]
    command += ["-DSDCONV_MNN", f"-I{STAND_IN}"]
    command += ['-DSDCONV_PLUGIN=getenv("PLUGIN")', "-Wl,--no-as-needed", *wheel_flags(tvm), "-ldl"]
    subprocess.run(command, check=True)
    return path


def verdict(tvm: Tvm, program: Path, plugin: Path, *folders: Path) -> tuple[int, str]:
    answer = f"{Mnn().python} {RUN_ONCE}"
    env = {**tvm.env(), "PLUGIN": str(plugin), "ANSWER": answer}
    command = [program, *folders]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()[-1]


def test_the_phones_program_tells_right_from_wrong(
    tvm: Tvm, program: Path, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    """Built for this machine, with its OpenCL in the place of the phone's."""
    plugin = opencl_device(tvm)
    manifest = compiled(
        diffusers_bundle, tmp_path, "adreno-opencl", "f32", "vae_decoder", size=TINY
    )
    phone = tmp_path / "phone"
    (name,) = write_phone_bundle(manifest, get_target("adreno-opencl"), phone, silent)
    part, whole = phone / "kernels" / f"attention-{name}", phone / "programs" / name
    library = (tmp_path / manifest.artifacts[0].path).with_name(f"{TINY}.opencl.so")
    library.rename(whole / "library.so")
    assert verdict(tvm, program, plugin, part, whole) == (0, "pass: 2 of 2 agree")
    answer = part / f"{GIVES}.qfp32"
    answer.write_bytes(np.full(answer.stat().st_size // 4, 0.5, np.float32).tobytes())
    assert verdict(tvm, program, plugin, part) == (1, "FAIL: 0 of 1 agree")
    sources = {"TVM_SOURCE": "tvm", "ANDROID_NDK": "ndk", "PATH": os.environ["PATH"]}
    build: list[str | Path] = ["sh", phone / "build.sh"]
    refused = subprocess.run(build, env=sources, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "MNN: is needed, for programs here have a part for MNN" in refused.stderr
    weights_file(whole / MODEL).unlink()
    assert verdict(tvm, program, plugin, whole) == (1, "FAIL: 0 of 1 agree")


def test_the_phones_program_runs_clmls_graphs(
    tvm: Tvm, program: Path, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    """A stand-in for CLML's runtime knows products of matrices, and no more."""
    manifest = compiled(diffusers_bundle, tmp_path, "adreno-clml", "f32", "text_encoder")
    phone = tmp_path / "phone"
    write_phone_bundle(manifest, get_target("adreno-clml"), phone, silent)
    stand_in = tmp_path / "stand_in.so"
    source = Path(__file__).with_name("clml_stand_in.cc")
    command: list[str | Path] = [str(tvm.compiler), "-std=c++17", "-fPIC", "-shared", source]
    command += ["-o", stand_in, "-Wl,--no-as-needed", opencl_device(tvm), *wheel_flags(tvm)]
    subprocess.run(command, check=True)
    kernels = phone / "kernels"
    known = sorted(kernels.glob("nn.dense-*"))
    assert {"nn.dense-float32-input-const", "nn.dense-float32-input-input"} <= {
        folder.name for folder in known
    }
    count = len(known)
    assert verdict(tvm, program, stand_in, *known) == (0, f"pass: {count} of {count} agree")
    unknown = next(kernels.glob("nn.conv2d-*"))
    assert verdict(tvm, program, stand_in, unknown) == (1, "FAIL: 0 of 1 agree")
