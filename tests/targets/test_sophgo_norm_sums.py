"""Group norms whose sums leave the range of F16: the interpreter says what the emulator does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.files import sha256_of
from converter.progress import silent
from converter.sizes import Size
from converter.weights import Array
from targets.base import CompileJob, QuantizeTable
from targets.sophgo.inside.norm_sums import sums_overflow
from targets.sophgo.interpreter import half_norms
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from tests.targets.sophgo_jobs import Weights, file_of


def constant(value: float, side: int, channels: int = 64) -> Array:
    return np.full((1, channels, side, side), value, np.float32)


@pytest.mark.parametrize(
    ("values", "groups", "overflows"),
    [
        (constant(510, 64), 32, True),  # 2 channels a group: 256 values a sum
        (constant(250, 64), 32, False),
        (constant(250, 64), 64, False),  # 1 channel: 128
        (constant(500, 64), 64, False),
        (constant(520, 64), 64, True),
        (constant(120, 128), 32, False),  # 512: all of the picture
        (constant(130, 128), 32, True),
        (constant(60000, 2), 32, False),  # fewer values than are added at once
        (np.tile(np.array([1, -1], np.float32), 64 * 2048).reshape(1, 64, 64, 64) * 520, 32, True),
    ],
)
def test_sums_are_of_every_32nd_value(values: Array, groups: int, overflows: bool) -> None:
    assert sums_overflow(values, groups) is overflows
    assert sums_overflow(np.concatenate([values * 0, values]), groups) is overflows


def test_what_is_not_finite_is_somebody_else_s_fault() -> None:
    assert not sums_overflow(constant(np.nan, 64), 32)


GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
vae_decoder (float[1, 64, 32, 32] latent) => (float[1, 64, 32, 32] image)
<int64[3] flat = {1, 32, 2048}, int64[4] back = {1, 64, 32, 32}, float two = {2.0}>
{
    doubled = Mul (latent, two)
    groups = Reshape (doubled, flat)
    unit = InstanceNormalization <epsilon: float = 0.00001> (groups, ones, zeros)
    normed = Reshape (unit, back)
    image = Mul (normed, scale)
}
"""


@pytest.fixture
def norm(tmp_path: Path) -> tuple[CompileJob, Weights]:
    """A group norm of 32 groups, each of 2 channels of 32x32 pixels."""
    model = onnx.parser.parse_model(GRAPH)
    for name, value in (("ones", 1), ("zeros", 0)):
        array = np.full(32, value, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    scale = model.graph.initializer.add(name="scale", dims=(64, 1, 1), data_type=1)
    scale.data_location = onnx.TensorProto.EXTERNAL
    for key, entry in (("location", "model.onnx.data"), ("offset", "0"), ("length", "256")):
        scale.external_data.add(key=key, value=entry)
    path, ones = tmp_path / "norm.onnx", np.ones((64, 1, 1), np.float32)
    onnx.save(model, path)
    file = file_of(tmp_path, {"scale": ones})
    shapes = (("latent", (1, 64, 32, 32)),)
    job = CompileJob("vae_decoder", path, sha256_of(path), shapes, Size(256, 256), 1, "f16")
    return job, Weights({"scale": ones}, "ones", file)


@pytest.mark.slow
def test_the_interpreter_gives_nan_where_the_emulator_does(
    tpu_mlir: TpuMlir, norm: tuple[CompileJob, Weights], tmp_path: Path
) -> None:
    job, weights = norm
    target = SophgoTarget()
    (artifact,) = target.bind([target.compile(job, weights, silent)], weights, tmp_path, silent)
    interpreter = target.interpret(job, weights, silent)
    assert interpreter is not None
    rng = np.random.default_rng(3)
    with target.open(artifact, tmp_path) as emulator, interpreter:
        for mean, finite in ((20.0, True), (900.0, True), (2100.0, False)):
            values = rng.standard_normal((1, 64, 32, 32)).astype(np.float32)
            values[:, :2] += mean  # the first group; a sum is of 32 of its values
            for runner in (emulator, interpreter):
                (image,) = runner.infer({"latent": values / 2}).values()
                assert np.isfinite(image).all() == finite, (runner, mean)


@pytest.mark.slow
def test_a_norm_that_is_kept_in_f32_is_no_half_norm(
    tpu_mlir: TpuMlir, norm: tuple[CompileJob, Weights], tmp_path: Path
) -> None:
    job, weights = norm
    interpreter = SophgoTarget().interpret(job, weights, silent)
    assert interpreter is not None
    with interpreter:
        network = interpreter._network
        (half,) = half_norms(job, network)
        assert half.groups == 32
        table = tmp_path / "table"
        table.write_text(f"# op mode\n{half.name} F32\n")
        kept = replace(job, quantize_table=QuantizeTable(table, ""))
        assert (
            half_norms(kept, network) == half_norms(replace(job, precision="bf16"), network) == []
        )
