"""The pipelines, on text and on the real thing: SD1.5's shipped UNet and a small model's bytes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import pytest

from converter.bundle import Bundle
from converter.components import interface
from converter.families.published import SD15
from converter.sizes import Size
from converter.template import load_template
from converter.weights import Array
from passes import pipelines
from passes.base import PassReport
from passes.linked_weights import read_graph
from passes.pipelines import Pipeline
from passes.weights import Place, weight_places
from tests.passes.graphs import assert_equal, names, operators, parse, random_inputs, run, to_bytes

KEYS = """
keys (int64[batch,tokens] ids, float[batch,tokens,6] x) => (float[batch,two,three,tokens] k, y)
<float[9,6] table = WEIGHT, float[6,6] W = WEIGHT, int64[2] split = {2, 3},
 int64[3] flat = {2, -1, 3}, int64[4] back = {1, 2, 3, -1}>
{
    embedded = Gather(table, ids)
    sum = Add(embedded, x)
    y = MatMul(sum, W)
    sides = Shape<start: int = 0, end: int = 2>(y)
    apart = Concat<axis: int = 0>(sides, split)
    b = Reshape(y, apart)
    c = Transpose<perm: ints = [0, 2, 1, 3]>(b)
    d = Reshape(c, flat)
    e = Transpose<perm: ints = [0, 2, 1]>(d)
    k = Reshape(e, back)
}"""
NEWER = '<ir_version: 11, opset_import: ["" : 23]>'
Build = Callable[[pipelines.InputShapes], Pipeline]
PORTS = {"ids": ("tokens", "int32"), "x": ("x", "float32")}
SHAPES = {"ids": (1, 5), "x": (1, 5, 6)}


def test_a_target_for_onnx_runtime_gets_one_size_and_short_chains() -> None:
    result = pipelines.onnxruntime(SHAPES).run(parse(KEYS))
    assert result.reports == (
        PassReport("specialize-size", 1),
        PassReport("fold-transpose-chain", 1),
        PassReport("sum-norms-in-stages", 0),
    )
    assert operators(result.model) == ["Gather", "Add", "MatMul", "Reshape", "Transpose"]


def test_a_target_for_mnn_gets_one_size_where_that_is_asked_for() -> None:
    result = pipelines.mnn(SHAPES, halves=True).run(parse(KEYS))
    assert result.reports == (
        PassReport("specialize-size", 1),
        PassReport("fold-transpose-chain", 1),
        PassReport("halve-phases-exactly", 0),
    )
    assert "Shape" in operators(pipelines.mnn(None).run(parse(KEYS)).model)


def test_a_target_for_sophgo_gets_small_integers_and_old_versions_too() -> None:
    result = pipelines.sophgo(SHAPES).run(parse(KEYS, NEWER))
    assert result.reports == (
        PassReport("specialize-size", 1),
        PassReport("fold-transpose-chain", 1),
        PassReport("scale-one-factor", 0),
        PassReport("split-feed-forward", 0),
        PassReport("multiply-tokens-transposed", 0),
        PassReport("write-out-silu", 0),
        PassReport("normalize-by-rows", 0),
        PassReport("write-out-gelu", 0),
        PassReport("narrow-int64-inputs", 1),
        PassReport("cap-versions", 2),
    )
    assert (result.model.ir_version, result.model.opset_imports[""]) == (9, 18)
    assert result.model.graph.inputs[0].dtype == ir.DataType.INT32
    assert all(v.shape and v.shape.is_static() for n in result.model.graph for v in n.outputs)


def test_what_is_rewritten_for_16_bits_stays_as_it_is_for_32() -> None:
    half, full = (pipelines.sophgo(SHAPES, half=half).passes for half in (True, False))
    assert {one.name for one in half} - {one.name for one in full} == {
        "normalize-by-rows",
        "write-out-gelu",
    }


def test_a_consumer_gets_its_names_while_sizes_stay_symbolic() -> None:
    result = pipelines.present(PORTS, {"y": "hidden"}).run(parse(KEYS))
    assert result.reports == (PassReport("present-interface", 4),)
    (output,) = result.model.graph.outputs
    assert output.name == "hidden"
    assert "Shape" not in operators(result.model)


EVERY = {
    "present": pipelines.present(PORTS, {"k": "keys"}),
    "onnxruntime": pipelines.onnxruntime(SHAPES),
    "mnn": pipelines.mnn(SHAPES, halves=True),
    "sophgo": pipelines.sophgo(SHAPES),
}


@pytest.mark.parametrize("pipeline", EVERY.values(), ids=EVERY.keys())
def test_no_pipeline_reads_a_weight(pipeline: Pipeline) -> None:
    model = parse(KEYS, NEWER)  # its weights have places in a file that does not exist
    with pytest.raises(FileNotFoundError):
        model.graph.initializers["W"].const_value.numpy()  # type: ignore[union-attr]
    before = weight_places(model)
    pipeline.run(model)
    assert weight_places(model) == before


@pytest.mark.parametrize("build", [pipelines.onnxruntime, pipelines.mnn, pipelines.sophgo])
def test_a_pipeline_run_twice_changes_nothing(build: Build) -> None:
    model = build(SHAPES).run(parse(KEYS)).model
    before = to_bytes(model)
    assert not any(report.fired for report in build(SHAPES).run(model).reports)
    assert to_bytes(model) == before


@dataclass(frozen=True)
class SpecialisedUNet:
    """SD1.5's shipped UNet at one size: the graph, its weights before, what the passes did."""

    model: ir.Model
    places_before: dict[str, Place]
    reports: tuple[PassReport, ...]
    seconds: float


def specialised(size: Size) -> SpecialisedUNet:
    start = time.process_time()
    model, _ = load_template("unet", SD15, residual_ports=True)
    places = weight_places(model)
    shapes = interface("unet", SD15, residual_ports=True).input_shapes(1, size)
    result = pipelines.onnxruntime(shapes).run(model)
    return SpecialisedUNet(result.model, places, result.reports, time.process_time() - start)


@pytest.fixture(scope="module")
def square() -> SpecialisedUNet:
    return specialised(Size(512, 512))


@pytest.fixture(scope="module")
def portrait() -> SpecialisedUNet:
    return specialised(Size(640, 960))


def test_every_attention_of_the_unet_gets_its_key_by_one_transpose(square: SpecialisedUNet) -> None:
    assert square.reports == (
        PassReport("specialize-size", 1),
        PassReport("fold-transpose-chain", 32),  # 16 blocks, each with self- and cross-attention
        PassReport("sum-norms-in-stages", 0),  # a UNet's groups are short
    )


def test_the_unet_computes_no_shape_and_knows_every_one(square: SpecialisedUNet) -> None:
    assert "Shape" not in operators(square.model)
    assert operators(square.model).count("Gemm") == 24  # the template's own, on time embeddings
    assert all(v.shape and v.shape.is_static() for n in square.model.graph for v in n.outputs)


def test_the_weights_of_the_unet_stay_where_they_are(square: SpecialisedUNet) -> None:
    assert len(square.places_before) == 686  # as many tensors as the checkpoint's UNet has
    assert weight_places(square.model) == square.places_before


def test_one_size_of_the_unet_takes_seconds(square: SpecialisedUNet) -> None:
    assert square.seconds < 20  # about 2 on a laptop; minutes if weights were touched


def structure(model: ir.Model) -> list[tuple[object, ...]]:
    """Every operator with its attributes and with what it reads and writes."""
    return [
        (
            node.op_type,
            {name: attribute.value for name, attribute in node.attributes.items()},
            names([value for value in node.inputs if value]),
            names(node.outputs),
        )
        for node in model.graph
    ]


def constants(model: ir.Model) -> dict[str, Array]:
    weights = weight_places(model)
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and name not in weights
    }


def test_two_sizes_of_the_unet_differ_in_shape_constants_only(
    square: SpecialisedUNet, portrait: SpecialisedUNet
) -> None:
    assert structure(square.model) == structure(portrait.model)
    assert square.reports == portrait.reports
    assert portrait.model.graph.outputs[0].shape == ir.Shape([1, 4, 120, 80])
    first, second = constants(square.model), constants(portrait.model)
    assert first.keys() == second.keys()
    changed: set[tuple[int, int]] = set()
    for name, values in first.items():
        other = second[name]
        assert (values.dtype, values.shape) == (other.dtype, other.shape)
        changed |= {
            (int(a), int(b)) for a, b in zip(values.flat, other.flat, strict=True) if a != b
        }
    sides = [(64 >> level, 120 >> level, 80 >> level) for level in range(4)]
    expected = {(s, h) for s, h, _ in sides} | {(s, w) for s, _, w in sides}
    assert changed == expected | {(s * s, h * w) for s, h, w in sides}


@pytest.mark.parametrize(
    ("build", "rtol"),
    [
        (pipelines.onnxruntime, 0),
        (pipelines.sophgo, 1e-5),  # GELU is a polynomial; attention scales round elsewhere
    ],
)
@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_a_whole_model_computes_the_same(
    small_bundle: Bundle, name: str, build: Build, rtol: float
) -> None:
    component = small_bundle.components[name]
    graph = small_bundle.folder / component.graph
    model = build(component.interface.input_shapes(1, Size(64, 128))).run(read_graph(graph)).model
    inputs = random_inputs(model)
    expected = run(read_graph(graph), inputs, graph.parent)
    assert_equal(run(model, inputs, graph.parent), expected, rtol)
