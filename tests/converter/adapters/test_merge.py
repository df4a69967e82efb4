"""The frame: scales, order, accuracy, norms, and what DoRA and rotations mean in plain formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.adapters.adapter import Adapter
from converter.adapters.merge import Merger
from converter.errors import InputError
from tests.converter.adapters.one_layer import Tensors, bound, merge_one, merged, relative

WEIGHT = torch.randn(24, 16, generator=torch.Generator().manual_seed(7))


def lora(seed: int, rank: int = 4, alpha: float | None = 2.0) -> Tensors:
    torch.manual_seed(seed)
    parts = {"lora_down.weight": torch.randn(rank, 16), "lora_up.weight": torch.randn(24, rank)}
    return parts if alpha is None else {**parts, "alpha": torch.tensor(alpha)}


def oft(seed: int) -> Tensors:
    torch.manual_seed(seed)
    return {"oft_blocks": torch.randn(6, 4, 4)}


def depends_on(*adapters: Adapter) -> list[tuple[str, float]]:
    return Merger("unet", adapters).depends_on("layer.weight")


KINDS = {"LoRA": lora(0), "OFT": oft(0), "DoRA": {**lora(0), "dora_scale": torch.rand(24, 1)}}


@pytest.mark.parametrize("kind", KINDS)
def test_scale_zero_leaves_the_very_bits(kind: str) -> None:
    half = WEIGHT.half()
    adapter = bound(KINDS[kind], half, scale=0.0)
    assert Merger("unet", [adapter]).merge("layer.weight", half.numpy()).dtype == np.float16
    assert torch.equal(merged(adapter, weight=half), half)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_goes_that_share_of_the_way(kind: str) -> None:
    whole = merge_one(KINDS[kind], WEIGHT)
    part = merge_one(KINDS[kind], WEIGHT, scale=0.3)
    assert relative(part, WEIGHT + 0.3 * (whole - WEIGHT)) < 1e-12


def test_a_missing_alpha_is_the_rank() -> None:
    parts = lora(1, rank=8, alpha=None)
    wanted = WEIGHT.double() + parts["lora_up.weight"].double() @ parts["lora_down.weight"].double()
    assert relative(merge_one(parts, WEIGHT), wanted) < 1e-12


@settings(max_examples=20)
@given(
    st.permutations(range(4)),
    st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    st.integers(0, 99),
)
def test_the_order_of_additive_adapters_makes_no_bit_of_difference(
    order: list[int], scales: list[float], seed: int
) -> None:
    adapters = [
        bound(lora(seed + i), WEIGHT, scale, content=str(i)) for i, scale in enumerate(scales)
    ]
    shuffled = [adapters[i] for i in order]
    assert torch.equal(merged(*adapters, weight=WEIGHT), merged(*shuffled, weight=WEIGHT))
    assert depends_on(*adapters) == depends_on(*shuffled)


def test_multiplicative_adapters_keep_the_users_order() -> None:
    first, second = bound(oft(0), WEIGHT, content="0"), bound(lora(1), WEIGHT, content="1")
    rotated = merged(first, weight=WEIGHT)
    assert relative(merged(first, second, weight=WEIGHT), merged(second, weight=rotated)) < 1e-12
    assert (
        relative(merged(second, first, weight=WEIGHT), merged(first, second, weight=WEIGHT)) > 0.1
    )
    assert depends_on(first, second) != depends_on(second, first)


def test_the_key_depends_on_every_effective_scale() -> None:
    def key(scale: float) -> list[tuple[str, float]]:
        return depends_on(bound(lora(0), WEIGHT, scale))

    assert key(0.5) != key(0.5000001)
    assert key(0.0) == depends_on() == []


def test_norms_are_those_of_the_scaled_change() -> None:
    adapter = bound(lora(2), WEIGHT, scale=0.5)
    merger = Merger("unet", [adapter])
    change = torch.from_numpy(merger.merge("layer.weight", WEIGHT.numpy())) - WEIGHT
    (norms,) = merger.norms.values()
    norm = float(change.norm())
    assert norms["layer.weight"]["norm"] == pytest.approx(norm, rel=1e-5)
    assert norms["layer.weight"]["relative"] == pytest.approx(norm / float(WEIGHT.norm()), rel=1e-5)


def test_a_change_of_zeros_has_norm_zero_and_a_zero_weight_no_ratio() -> None:
    zeros = {**lora(0), "lora_up.weight": torch.zeros(24, 4)}
    merger = Merger("unet", [bound(zeros, WEIGHT)])
    merger.merge("layer.weight", np.zeros((24, 16), np.float32))
    assert [*merger.norms.values()] == [{"layer.weight": {"norm": 0.0, "relative": None}}]


def test_values_that_are_not_finite_are_refused() -> None:
    broken = {**lora(0), "lora_up.weight": torch.full((24, 4), float("nan"))}
    with pytest.raises(InputError, match=r"layer\.weight is not finite.*download it again"):
        merged(bound(broken, WEIGHT), weight=WEIGHT)


@pytest.mark.parametrize("part", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_magnitudes_of_peft_belong_to_outputs_even_of_a_square_convolution(part: str) -> None:
    torch.manual_seed(3)
    weight = torch.randn(8, 8, 3, 3)
    parts = {"lora_down.weight": torch.randn(2, 8, 3, 3), "lora_up.weight": torch.randn(8, 2, 1, 1)}
    magnitude = torch.rand(1, 8, 1, 1)
    adapted = merge_one(parts, weight)
    wanted = adapted * (
        magnitude.view(8, 1, 1, 1) / adapted.flatten(1).norm(dim=1)[:, None, None, None]
    )
    assert relative(merge_one({**parts, part: magnitude}, weight), wanted) < 1e-7
    per_input = adapted * (
        magnitude / adapted.transpose(0, 1).flatten(1).norm(dim=1)[:, None, None]
    )
    found = merge_one({**parts, "dora_scale": magnitude}, weight)
    assert relative(found, per_input) < 1e-7


def test_the_norm_of_dora_is_that_of_the_adapted_weight() -> None:
    magnitude = torch.rand(24, 1) + 0.5
    found = merge_one({**lora(4), "dora_scale": magnitude}, WEIGHT)
    assert relative(found.norm(dim=1, keepdim=True), magnitude) < 1e-7


def dense(blocks: list[torch.Tensor]) -> torch.Tensor:
    matrix: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return matrix


def test_a_rotation_is_dense_algebra_in_blocks() -> None:
    blocks = oft(5)["oft_blocks"].double()
    skew = blocks - blocks.transpose(1, 2)
    identity = torch.eye(4, dtype=torch.float64)
    rotations = [torch.linalg.solve((identity - q).T, (identity + q).T).T for q in skew]
    wanted = dense(rotations).T @ WEIGHT.double()
    assert relative(merge_one({"oft_blocks": blocks}, WEIGHT), wanted) < 1e-12
    old = {"oft_diag": torch.stack(rotations)}
    assert relative(merge_one(old, WEIGHT), wanted) < 1e-12


def test_alpha_bounds_a_rotation_in_units_of_the_outputs() -> None:
    blocks = oft(6)["oft_blocks"].double()
    skew = blocks - blocks.transpose(1, 2)
    bounded = blocks * (2**-9 * 24 / skew.norm())
    found = merge_one({"oft_blocks": blocks, "alpha": torch.tensor(2**-9)}, WEIGHT)
    assert relative(found, merge_one({"oft_blocks": bounded}, WEIGHT)) < 1e-12


def test_a_butterfly_is_a_product_of_permuted_block_rotations() -> None:
    torch.manual_seed(8)
    stages = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    found = merge_one({"oft_blocks": stages}, WEIGHT)
    rotated = WEIGHT.double()
    identity = torch.eye(6, dtype=torch.float64)
    for index, blocks in enumerate(stages - stages.transpose(2, 3)):
        rotation = dense([(identity + q) @ torch.inverse(identity - q) for q in blocks])
        run = 3 * 2**index
        order = [
            start + pair * run + offset
            for start in range(0, 24, 2 * run)
            for offset in range(run)
            for pair in (0, 1)
        ]
        permutation = torch.eye(24, dtype=torch.float64)[order]
        rotated = permutation.T @ rotation @ permutation @ rotated
    assert relative(found, rotated) < 1e-12


def test_the_first_glora_files_hold_the_factors_the_other_way_round() -> None:
    torch.manual_seed(9)
    parts = {
        "a1.weight": torch.randn(16, 3), "a2.weight": torch.randn(3, 16),
        "b1.weight": torch.randn(24, 3), "b2.weight": torch.randn(3, 16),
    }  # fmt: skip
    swapped = {
        "a2.weight": parts["a1.weight"], "a1.weight": parts["a2.weight"],
        "b2.weight": parts["b1.weight"], "b1.weight": parts["b2.weight"],
    }  # fmt: skip
    assert torch.equal(merge_one(parts, WEIGHT), merge_one(swapped, WEIGHT))


@pytest.mark.parametrize(("parts", "tensor"), [(("diff", "diff_b"), 0), (("w_norm", "b_norm"), 1)])
def test_differences_of_norms_change_scale_and_bias(parts: tuple[str, str], tensor: int) -> None:
    norm, bias = torch.rand(24), torch.rand(24)
    changes = {parts[0]: torch.rand(24), parts[1]: torch.rand(24)}
    adapter = bound(changes, norm)
    assert adapter.ledger.to_json()["used"] == 2
    for name, part, values in (("weight", parts[0], norm), ("bias", parts[1], bias)):
        found = merged(adapter, weight=values, tensor=name)
        assert relative(found, values.double() + changes[part].double()) < 1e-15
