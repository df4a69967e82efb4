"""The real thing, small: ONNX Runtime artifacts of a whole bundle against torch."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from converter.bundle import Bundle
from converter.sizes import Size
from converter.weights import Array
from targets.base import Artifact, Runner
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.onnxruntime import OnnxRuntimeTarget
from targets.torch_reference import open_reference
from validate.base import Verdict
from validate.judge import ComponentJudge
from validate.metrics import measure
from validate.plan import plan
from validate.validate import ValidateRequest, validate


@pytest.fixture(scope="module")
def artifacts(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    compile_bundle(CompileRequest(small_bundle.folder, "onnxruntime", (Size(128, 64),), folder))
    return folder


def test_every_component_agrees(artifacts: Path) -> None:
    report = validate(ValidateRequest(artifacts))
    assert report.verdict is Verdict.PASS
    assert len(report.results) == 4 + 4  # artifacts, exports
    for result in report.results:
        assert result.worst.measurement is not None
        assert result.worst.measurement.agreement is not None
        assert result.worst.measurement.agreement.psnr_db > 100


class Exchanged(Runner):
    """Hands a runner's two inputs to each other."""

    def __init__(self, runner: Runner, one: str, other: str) -> None:
        self.runner, self.one, self.other = runner, one, other

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        one, other = self.one, self.other
        return self.runner.infer({**inputs, one: inputs[other], other: inputs[one]})


class WrongWires(OnnxRuntimeTarget):
    """ONNX Runtime with two ports of the UNet exchanged."""

    def __init__(self, one: int, other: int) -> None:
        name = "down_block_additional_residual_"
        self.ports = f"{name}{one}", f"{name}{other}"

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        runner = super().open(artifact, folder)
        return Exchanged(runner, *self.ports) if artifact.component == "unet" else runner


# Ports of equal shape: nothing but the numbers can tell them apart. In a network of random weights
# the lowest level moves the output by 40 dB only, which half precision's floor of 35 dB allows.
@pytest.mark.parametrize(
    ("one", "other", "precision"),
    [(0, 1, "f16"), (1, 2, "f16"), (4, 5, "f16"), (7, 8, "f16"), (10, 11, "f32")],
)
def test_exchanged_ports_of_a_real_unet_fail(
    one: int, other: int, precision: str, artifacts: Path, small_bundle: Bundle
) -> None:
    validate(ValidateRequest(artifacts))
    manifest = Manifest.load(artifacts)
    bundle = manifest.load_bundle(small_bundle.folder)
    group = next(g for g in plan(manifest, bundle) if g.component == "unet")
    inputs = group.inputs.load("t501-residuals")
    reference = group.reference.load("t501-residuals")["noise_pred"]
    with WrongWires(one, other).open(group.subjects[0].artifact, artifacts) as runner:
        output = runner.infer(inputs)["noise_pred"]
    judge = ComponentJudge()
    ruling = judge.rule(measure(output, reference), judge.threshold("unet", precision))
    assert ruling.verdict is Verdict.FAIL


def test_the_reference_is_deterministic(small_bundle: Bundle, artifacts: Path) -> None:
    validate(ValidateRequest(artifacts))
    group = next(
        g for g in plan(Manifest.load(artifacts), small_bundle) if g.component == "vae_decoder"
    )
    with open_reference(small_bundle, "vae_decoder") as runner:
        again = runner.infer(group.inputs.load("shapes"))["image"]
    assert (again == group.reference.load("shapes")["image"]).all()
