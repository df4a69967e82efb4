"""Real bmodels on the vendor's chip emulator against torch: the whole way, at two sizes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.bundle import Bundle
from converter.modules import load_module
from converter.progress import silent
from converter.sizes import Size
from converter.weights import Array
from examples.mini.pictures import Scene
from examples.mini.recognise import recognise
from examples.mini.score import FILES, QUICK, RECIPES
from runtime.staging import drawing_components, open_artifacts, open_reference
from sdconv.main import run
from targets.base import Artifact, Runner
from targets.compile import CompileRequest, compile_bundle, job_of
from targets.manifest import Manifest
from targets.sophgo.chips import CHIPS
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from validate.base import Verdict
from validate.judge import PictureJudge
from validate.metrics import measure
from validate.references import open_torch_reference
from validate.thresholds import picture_threshold

pytestmark = pytest.mark.slow

SIZES = (Size(64, 64), Size(128, 64))

LIMITS = {
    # Relative error (2-norm). f32 differs in the order of summation only; half precision rounds
    # every tensor of some hundred layers to 11 bits (f16) or 8 bits (bf16), errors adding like a
    # random walk. Measured with random weights: 1.6e-6, 3e-3, 2.6e-2.
    "f32": 1e-5,
    "f16": 1e-2,
    "bf16": 6e-2,
}


def inputs_of(bundle: Bundle, artifact: Artifact) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    inputs: dict[str, Array] = {}
    for port in bundle.components[artifact.component].interface.inputs:
        shape = port.at(artifact.batch, artifact.size)
        if port.name == "timestep":
            inputs[port.name] = np.full(shape, 301, port.dtype)
        elif port.dtype.startswith("int"):
            inputs[port.name] = rng.integers(0, 49407, shape).astype(port.dtype)
        else:
            inputs[port.name] = rng.standard_normal(shape).astype(port.dtype)
    return inputs


def relative_error(bundle: Bundle, artifact: Artifact, runner: Runner) -> float:
    inputs = inputs_of(bundle, artifact)
    (output,) = runner.infer(inputs).values()
    with torch.inference_mode():
        module = load_module(bundle, artifact.component)
        expected = module(*(torch.from_numpy(value) for value in inputs.values()))
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert output.shape == tuple(expected.shape)
    difference = np.linalg.norm(output - expected.numpy())
    return float(difference / np.linalg.norm(expected.numpy()))


def test_the_doctor_finds_the_toolchain_well(
    tpu_mlir: TpuMlir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["toolchain", "doctor", "tpu-mlir"]) == 0
    out = capsys.readouterr().out
    assert out.count("relative error") == 31  # five precisions on six chips, one has no f32
    tried = {"bm1688-2core", "bm1690-8core", *(c.name for c in CHIPS.values())}
    assert all(f"the {chip} emulator" in out for chip in tried)


def test_both_sizes_of_a_unet_compute_what_torch_computes(
    tpu_mlir: TpuMlir, shallow_bundle: Bundle, tmp_path: Path
) -> None:
    folder = shallow_bundle.folder
    request = CompileRequest(folder, "bm1684x", SIZES, tmp_path, components=("unet",))
    artifacts = compile_bundle(request).artifacts
    assert len({artifact.path for artifact in artifacts}) == 1
    target = SophgoTarget()
    for artifact in artifacts:
        assert artifact.predicted_ms is not None
        estimate = target.run_seconds(artifact, tmp_path)
        assert estimate is not None
        assert estimate > 1
        with target.open(artifact, tmp_path) as runner:
            assert relative_error(shallow_bundle, artifact, runner) < LIMITS["f16"]


def test_text_encoder_and_autoencoder(
    tpu_mlir: TpuMlir, small_bundle: Bundle, tmp_path: Path
) -> None:
    # At 64x64 the attention of the autoencoder has as many tokens as channels a head, for which the
    # compiler makes wrong code unless `ScaleOneFactorPass` has run.
    request = CompileRequest(
        small_bundle.folder, "bm1684x", (Size(64, 64),), tmp_path,
        components=("text_encoder", "vae_encoder", "vae_decoder"),
    )  # fmt: skip
    target = SophgoTarget()
    for artifact in compile_bundle(request).artifacts:
        job, weights = job_of(small_bundle, artifact), small_bundle.weights(artifact.component)
        errors = {}
        for link, runner in (
            ("bmodel on the emulator", target.open(artifact, tmp_path)),
            ("lowered network in the interpreter", target.interpret(job, weights, silent)),
        ):
            assert runner is not None
            with runner:
                errors[link] = relative_error(small_bundle, artifact, runner)
        assert max(errors.values()) < LIMITS[artifact.precision], (artifact.component, errors)


@pytest.mark.parametrize("chip", ["bm1684x", "bm1688-2core"])
def test_a_bmodel_draws_what_it_is_told(chip: str, tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    bundle = RECIPES["LCM-LoRA, 4 steps"].export(FILES, tmp_path / "bundle")
    size, scene = Size(64, 64), Scene("circle", "red", "blue")
    drawing = drawing_components(bundle)
    request = CompileRequest(bundle.folder, chip, (size,), tmp_path, components=drawing)
    manifest = compile_bundle(request)
    asked = replace(QUICK, prompt=scene.caption())
    with open_artifacts(manifest, bundle, SophgoTarget(chip), size) as pipeline:
        picture = pipeline.draw(asked).picture
    with open_reference(bundle, size, open_torch_reference) as pipeline:
        wanted = pipeline.draw(asked).picture
    assert recognise(picture).shows(scene)
    measured = measure(picture.clip(-1, 1), wanted.clip(-1, 1))
    assert PictureJudge().rule(measured, picture_threshold("bf16")).verdict is Verdict.PASS


@pytest.mark.parametrize("precision", ["w8f16", "int8-mixed"])
def test_weights_of_eight_bits(precision: str, tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    """From the command line, with calibration data of real trajectories; the verdict judges."""
    bundle = RECIPES["LCM-LoRA, 4 steps"].export(FILES, tmp_path / "bundle")
    data, artifacts = str(tmp_path / "calibration"), tmp_path / "artifacts"
    folder, size = str(bundle.folder), ["--sizes", "64x64"]
    prompts = ["-p", Scene("circle", "red", "blue").caption(), "-p", "a white star"]
    assert run(["calibrate", folder, *size, *prompts, "--steps", "1", "-o", data]) == 0
    words = ["compile", "-n", folder, "--target", "bm1684x", *size, "-o", str(artifacts)]
    words += ["--components", "text_encoder", "--precision", f"text_encoder={precision}"]
    assert run([*words, "--calibration", data]) == 0
    results = json.loads((artifacts / "report.json").read_text())["results"]
    (result,) = (one for one in results if one["level"] == "component")
    assert (result["precision"], result["verdict"]) == (precision, "pass")
    (artifact,) = Manifest.load(artifacts).artifacts
    assert artifact.how == ("bound" if precision == "w8f16" else "compiled with weights")


def test_a_runner_answers_more_than_once_and_refuses_a_wrong_shape(
    tpu_mlir: TpuMlir, small_bundle: Bundle, tmp_path: Path
) -> None:
    request = CompileRequest(
        small_bundle.folder, "bm1684x", (Size(64, 64),), tmp_path, components=("text_encoder",)
    )
    artifact = compile_bundle(request).artifacts[0]
    inputs = inputs_of(small_bundle, artifact)
    with SophgoTarget().open(artifact, tmp_path) as runner:
        first = runner.infer(inputs)
        with pytest.raises(ValueError, match="int64"):
            runner.infer({name: value.astype(np.int64) for name, value in inputs.items()})
        again = runner.infer(inputs)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
