"""What passes write for tpu-mlir, compiled by it, on the chip emulator against ONNX Runtime."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.progress import silent
from converter.weights import Array
from passes import normalize_by_rows, pipelines, split_feed_forward
from passes.weights import weight_places
from targets.base import CompileJob
from targets.driver import PortAt
from targets.sophgo.bmodel.reading import read_bmodel, stages, weights_of
from targets.sophgo.chips import get_chip
from targets.sophgo.compilation import BMODEL_FILE, compile_graph, unbound
from targets.sophgo.emulator import EmulatorRunner
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.packing.weight_map import WeightMap
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir
from tests.passes.graphs import WEIGHTS_FILE, parse, random_weights, run, to_bytes, write_weights

pytestmark = pytest.mark.slow

BLOCK = """
block (float[1,32,4,4] x) => (float[1,24,4,4] picture)
<float[32,1,1] gamma = WEIGHT, float[32,1,1] beta = WEIGHT, float[32,128] W = WEIGHT,
 float[128] b = WEIGHT, float[64,32] V = WEIGHT, float[32] c = WEIGHT,
 float[24,32,1,1] kernel = WEIGHT, float[24] bias = WEIGHT,
 float[8] ones = {1, 1, 1, 1, 1, 1, 1, 1}, float[8] zeros = {0, 0, 0, 0, 0, 0, 0, 0},
 float root = {1.4142135}, float one = {1.0}, float half = {0.5}, int64[3] flat = {1, 8, 64},
 int64[4] back = {1, 32, 4, 4}, int64[3] row = {1, 16, 32}, int64[4] apart = {1, 4, 4, 32}>
{
    groups = Reshape(x, flat)
    unit = InstanceNormalization<epsilon: float = 0.00001>(groups, ones, zeros)
    channels = Reshape(unit, back)
    scaled = Mul(channels, gamma)
    normed = Add(scaled, beta)
    pixels = Transpose<perm: ints = [0, 2, 3, 1]>(normed)
    tokens = Reshape(pixels, row)
    wide = MatMul(tokens, W)
    biased = Add(wide, b)
    value, gate = Split<axis: int = 2, num_outputs: int = 2>(biased)
    small = Div(gate, root)
    error = Erf(small)
    raised = Add(error, one)
    halved = Mul(half, raised)
    open = Mul(gate, halved)
    hidden = Mul(value, open)
    narrow = MatMul(hidden, V)
    fed = Add(narrow, c)
    rows = Reshape(fed, apart)
    turned = Transpose<perm: ints = [0, 3, 1, 2]>(rows)
    convolved = Conv<kernel_shape: ints = [1, 1]>(turned, kernel, bias)
    share = Sigmoid(convolved)
    picture = Mul(convolved, share)
}"""
"""A transformer block without its attention, from one picture to the next."""

PASSES = (
    "split-feed-forward",
    "multiply-tokens-transposed",
    "normalize-by-rows",
    "write-out-silu",
)

LIMIT = 5e-3
"""Relative error (2-norm) of F16: each of twenty tensors on the way is rounded to 11 bits."""


def compile_block(
    tpu_mlir: TpuMlir, model: ir.Model, weights: Path | None, folder: Path
) -> StageRecord:
    folder.mkdir()
    content = to_bytes(model)
    path = folder / "block.onnx"
    path.write_bytes(content)
    ports = (
        (PortAt("x", "float32", (1, 32, 4, 4)),),
        (PortAt("picture", "float32", (1, 24, 4, 4)),),
    )
    graph = StaticGraph(path, sha256(content).hexdigest(), *ports)
    job = CompileJob("block", path, graph.sha256, (), None, 1, "f16")
    compile_graph(tpu_mlir, get_chip("bm1684x"), job, graph, weights, folder, silent)
    return StageRecord.load(folder)


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ir.Model, dict[str, Array]]:
    """The block as the pipeline leaves it, and its weights; activations far from zero, too."""
    monkeypatch.setattr(split_feed_forward, "LARGE", 0)
    monkeypatch.setattr(normalize_by_rows, "LARGE", 0)
    model = parse(BLOCK)
    result = pipelines.sophgo({"x": (1, 32, 4, 4)}).run(model)
    fired = {report.name: report.fired for report in result.reports}
    assert [fired[name] for name in PASSES] == [1] * len(PASSES)
    assert fired["write-out-gelu"] == split_feed_forward.PARTS
    values = {name: array / 4 for name, array in random_weights(model).items()}
    values["b"][64:68] = -20, -60, -200, -1000  # gates, nearly shut: their GELU is zero
    values["bias"] = np.linspace(-40, 40, 24, dtype=np.float32)
    write_weights(model, tmp_path, values)
    return model, values


def test_rewritten_operators_compute_what_they_did(
    tpu_mlir: TpuMlir, block: tuple[ir.Model, dict[str, Array]], tmp_path: Path
) -> None:
    model, _ = block
    x = np.random.default_rng(2).standard_normal((1, 32, 4, 4)).astype(np.float32)
    x[0, :8] *= 1000  # its squares leave the range of F16
    inputs = {"x": x}
    expected = run(parse(BLOCK), inputs, tmp_path)["picture"]
    assert expected.min() < 0 < expected.max()
    folder = tmp_path / "whole"
    record = compile_block(tpu_mlir, model, tmp_path / WEIGHTS_FILE, folder)
    chip = get_chip("bm1684x")
    with EmulatorRunner(tpu_mlir, chip, folder / BMODEL_FILE, record) as runner:
        found = runner.infer(inputs)["picture"]
    assert np.linalg.norm(found - expected) < LIMIT * np.linalg.norm(expected)


def test_parts_and_other_shapes_of_weights_are_learned(
    tpu_mlir: TpuMlir, block: tuple[ir.Model, dict[str, Array]], tmp_path: Path
) -> None:
    model, values = block
    compile_block(tpu_mlir, model, tmp_path / WEIGHTS_FILE, tmp_path / "whole")
    bmodel = read_bmodel(tmp_path / "whole" / BMODEL_FILE)
    ((_, stage),) = stages(bmodel.model)
    binary = weights_of(stage)
    assert binary is not None
    region = np.frombuffer(bmodel.bytes_of(binary), np.uint8)
    assert set(weight_places(model)) == set(values)
    compile_block(tpu_mlir, model, None, tmp_path / "skeleton")
    assert unbound(tmp_path / "skeleton") is None
    learned = WeightMap.load(tmp_path / "skeleton")
    assert {weight.source for weight in learned.weights} == set(values)
    for weight in learned.weights:
        packed = weight.pack(values[weight.source])
        np.testing.assert_array_equal(region[weight.offset :][: len(packed)], packed)
