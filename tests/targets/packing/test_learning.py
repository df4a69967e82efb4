"""Finding weights again in a region packed by hand, and refusing what cannot be explained."""

from collections.abc import Callable

import numpy as np
import pytest

from converter.weights import Array
from targets.sophgo.packing.learning import NotLearnedError, RegionTensor, learn, region_tensors
from targets.sophgo.packing.weight_map import WeightMap

PAGE = 4096

MLIR = """
#loc = loc(unknown)
#loc1 = loc("conv_in.weight_f16")
#loc2 = loc("bias")
module @unet attributes {module.coeff_addr = 4294967296 : i64} {
  %1 = "top.Weight"() {path = "x"} : () -> tensor<64x1x32xf16, 4294971392 : i64> loc(#loc1)
  %2 = "top.Weight"() {path = "x"} : () -> tensor<1x8xf32, 4294967296 : i64> loc(#loc2)
}
"""


def weights(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {
        "conv.weight": (8, 4, 3, 3),
        "conv.bias": (8,),
        "norm.weight": (40,),
        "linear.weight": (48, 40),
        "linear.bias": (48,),
        "proj.weight.T": (40, 64),
        "proj.bias": (64,),
        "table.weight": (20, 16),
    }
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def packed_by_hand(values: dict[str, Array]) -> dict[str, tuple[str, Array]]:
    """The compiler's names -> dtype and elements, packed without the code under test."""
    conv = np.zeros((8, 3, 32), np.float16)  # outputs, columns, lanes: inputs times rows
    for output, channel, row, column in np.ndindex(8, 4, 3, 3):
        value = values["conv.weight"][output, channel, row, column]
        conv[output, column, channel * 3 + row] = value
    half = {name: value.astype(np.float16) for name, value in values.items()}
    return {
        "node_Conv_filter_reorderd": ("f16", conv),
        "conv.bias": ("f32", values["conv.bias"]),
        "group_norm_Add_merged_scale_f16": ("f16", half["norm.weight"]),
        "linear.weight_fix_f16": ("f16", half["linear.weight"].T.copy()),
        "linear.weight_fix_f16_1_16": ("f16", half["linear.weight"].T[:, 16:32].copy()),
        "linear.bias_f16_0_16": ("f16", half["linear.bias"][16:32]),
        "proj.weight.T__offset32_f16": ("f16", half["proj.weight.T"][:, 32:].copy()),
        "proj.bias__offset0_f16": ("f16", half["proj.bias"][:32]),
        "gather_folder": ("f32", values["table.weight"]),
        "where_0": ("f16", np.tril(np.ones((5, 5), np.float16))),
        "resize_indices": ("i16", np.arange(40, dtype=np.int16)),
        "scale_of_ones": ("f16", np.ones(64, np.float16)),
        "scale_of_few_ones": ("f16", np.eye(24, 32, dtype=np.float16)),
    }


def region_of(packed: dict[str, tuple[str, Array]]) -> tuple[Array, list[RegionTensor]]:
    region = np.zeros(PAGE * len(packed), np.uint8)
    tensors = []
    for page, (name, (dtype, values)) in enumerate(packed.items()):
        offset = page * PAGE
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        region[offset : offset + raw.size] = raw
        tensors.append(RegionTensor(name, (1, *values.shape), dtype, offset))
    return region, tensors


def filled(weight_map: WeightMap, values: dict[str, Array]) -> Array:
    region = np.zeros(weight_map.region, np.uint8)
    for constant in weight_map.constants:
        held = np.frombuffer(constant.data, np.uint8)
        region[constant.offset : constant.offset + held.size] = held
    for weight in weight_map.weights:
        raw = weight.pack(values[weight.source])
        region[weight.offset : weight.offset + raw.size] = raw
    return region


def test_other_weights_go_where_the_placeholders_were() -> None:
    placeholders, others = weights(0), weights(1)
    region, tensors = region_of(packed_by_hand(placeholders))
    weight_map = learn(region, tensors, placeholders, ["where"])
    assert len(weight_map.weights) == 9
    assert {weight.layout for weight in weight_map.weights} == {
        "same", "transposed", "filter-rows-32",
    }  # fmt: skip
    expected, _ = region_of(packed_by_hand(others))
    assert np.array_equal(filled(weight_map, others), expected)


def test_a_table_may_be_longer_than_its_shape_says() -> None:
    placeholders = weights(0)
    region, tensors = region_of(packed_by_hand(placeholders))
    table = next(t for t in tensors if t.name == "resize_indices")
    region[table.offset + 200] = 7
    weight_map = learn(region, tensors, placeholders, ["where"])
    assert np.array_equal(filled(weight_map, placeholders), region)


def scaled(region: Array, tensors: list[RegionTensor]) -> None:
    """A weight that went in as a product of two, as a compiler might fold them."""
    at = next(t for t in tensors if t.name == "gather_folder").offset
    region[at : at + 1280].view(np.float32)[:] *= 1.5


def one_bit(region: Array, tensors: list[RegionTensor]) -> None:
    at = next(t for t in tensors if t.name == "linear.weight_fix_f16").offset
    region[at + 100] ^= 1


def behind(region: Array, tensors: list[RegionTensor]) -> None:
    at = next(t for t in tensors if t.name == "conv.bias").offset
    region[at + 40] = 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (scaled, "1 of 13 packed weights are in no known form: gather_folder"),
        (one_bit, "linear.weight_fix_f16"),
        (behind, "bytes behind conv.bias belong to nothing known"),
    ],
)
def test_what_is_not_explained_is_named(
    damage: Callable[[Array, list[RegionTensor]], None], said: str
) -> None:
    region, tensors = region_of(packed_by_hand(weights(0)))
    damage(region, tensors)
    with pytest.raises(NotLearnedError, match=said):
        learn(region, tensors, weights(0), ["where"])


def test_a_mask_is_constant_only_if_the_graph_has_it() -> None:
    region, tensors = region_of(packed_by_hand(weights(0)))
    with pytest.raises(NotLearnedError, match="no known form: where_0"):
        learn(region, tensors, weights(0), [])


def test_names_shapes_and_offsets_come_from_the_mlir() -> None:
    assert region_tensors(MLIR, 4294967296) == [
        RegionTensor("bias", (1, 8), "f32", 0),
        RegionTensor("conv_in.weight_f16", (64, 1, 32), "f16", 4096),
    ]
    with pytest.raises(NotLearnedError, match="1 weights of the compiler's MLIR"):
        region_tensors(MLIR.replace('#loc2 = loc("bias")', ""), 4294967296)
