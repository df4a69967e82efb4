import numpy as np
import onnx_ir as ir
import pytest

from passes.pool_at_end_token import PoolAtEndTokenPass
from tests.passes.graphs import apply, operators, parse, run

END = 7
POOL = """
pool (int32[rows,5] ids) => (int64[rows] place)
{
    place = ArgMax<axis: int = -1, keepdims: int = 0>(ids)
}"""


def applied(model: ir.Model) -> PoolAtEndTokenPass:
    return apply(lambda: PoolAtEndTokenPass(END), model)


def places(model: ir.Model, *rows: list[int]) -> list[int]:
    found: list[int] = run(model, {"ids": np.array(rows, np.int32)})["place"].tolist()
    return found


def test_ids_behind_the_end_no_longer_draw_the_pool_to_them() -> None:
    model = parse(POOL)
    plain, extended = [6, 1, 7, 7, 7], [6, 9, 8, 7, 0]
    assert places(model, plain, extended) == [2, 1]
    assert applied(model).report.fired == 1
    assert operators(model) == ["Equal", "Cast", "ArgMax"]
    assert places(model, plain, extended) == [2, 3]


@pytest.mark.parametrize("dtype", ["float", "int64"])
def test_what_is_no_search_among_ids_is_left_alone(dtype: str) -> None:
    model = parse(POOL.replace("int32[rows,5]", f"{dtype}[rows,5]"))
    assert applied(model).report.fired == 0
    assert operators(model) == ["ArgMax"]


def test_two_searches_share_the_number() -> None:
    two = POOL.replace("place)\n", "place, int64[rows] other)\n").replace(
        "    place =", "    other = ArgMax<axis: int = -1, keepdims: int = 0>(ids)\n    place ="
    )
    model = parse(two)
    assert applied(model).report.fired == 2
    assert operators(model).count("Equal") == 2
    assert places(model, [6, 9, 7, 0, 0]) == [2]
