from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from passes.take_embeddings import TakeEmbeddingsPass
from tests.passes.graphs import (
    apply,
    assert_equal,
    operators,
    parse,
    random_inputs,
    random_weights,
    run,
    write_weights,
)

UNET = """
unet (float[batch,4,2,2] sample, float[1] timestep, float[batch,3,5] text,
      float[batch,7] pooled) => (float[batch,16] y, float[batch,3,6] z, float[1,6] e)
<float[6,2] W = WEIGHT, float[6] b = WEIGHT, float[5,6] V = WEIGHT, float[1,1] frequency = {0.3},
 int64[2] wide = {1, 1}, int64[1] last = {16}>
{
    apart = Reshape(timestep, wide)
    batch = Shape<start: int = 0, end: int = 1>(pooled)
    rest = Concat<axis: int = 0>(batch, last)
    angle = Mul(apart, frequency)
    cosine = Cos(angle)
    sine = Sin(angle)
    time = Concat<axis: int = 1>(cosine, sine)
    e = Gemm<transB: int = 1>(time, W, b)
    flat = Reshape(sample, rest)
    y = Neg(flat)
    z = MatMul(text, V)
}"""

FED = {"W": "time_embedding"}


def test_the_embedding_of_time_is_an_input(tmp_path: Path) -> None:
    model = parse(UNET)
    write_weights(model, tmp_path, random_weights(model))
    sample, text, pooled = (random_inputs(model)[n] for n in ("sample", "text", "pooled"))
    timestep = np.array([7], np.float32)
    plain = {"sample": sample, "timestep": timestep, "text": text, "pooled": pooled}
    before = run(model, plain, tmp_path)
    one = apply(lambda: TakeEmbeddingsPass(FED), model)
    assert one.report.fired == 2
    assert [(v.name, v.shape) for v in model.graph.inputs] == [
        ("sample", ir.Shape(["batch", 4, 2, 2])),
        ("text", ir.Shape(["batch", 1, 3, 5])),
        ("time_embedding", ir.Shape(["batch", 1, 1, 2])),
    ]
    assert not {"Cos", "Sin"} & set(operators(model))
    angle = timestep[:, None] * np.float32(0.3)
    time = np.concatenate([np.cos(angle), np.sin(angle)], 1)[:, None, None]
    given = {"sample": sample, "text": text[:, None], "time_embedding": time}
    assert_equal(run(model, given, tmp_path), before, rtol=1e-6)


@pytest.mark.parametrize("name", ["V", "nothing"])
def test_a_layer_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(Exception, match=f"{name}: one Gemm by it was expected"):
        TakeEmbeddingsPass({name: "time_embedding"})(parse(UNET))
