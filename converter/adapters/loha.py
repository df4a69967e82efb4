"""LoHa: ``alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)``, an element-wise product of two LoRAs.

Sources: https://arxiv.org/abs/2108.06098; keys and Tucker form (t1, t2) as in LyCORIS.
"""

from converter.adapters.base import Kind, Parts, Shape, Shapes, flat, matrix
from converter.adapters.tucker import tucker, tucker_fits
from converter.weights import Array

PLAIN = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})


def fits(shapes: Shapes, weight: Shape) -> bool:
    """Without Tucker, a is [outputs, rank] and b [rank, inputs * kernel]; with it, see `tucker`."""
    return all(_half_fits(shapes, side, weight) for side in "12")


def _half_fits(shapes: Shapes, side: str, weight: Shape) -> bool:
    a, b = shapes[f"hada_w{side}_a"], shapes[f"hada_w{side}_b"]
    if min(len(a), len(b)) < 2:
        return False
    if "hada_t1" in shapes or "hada_t2" in shapes:
        return tucker_fits(shapes.get(f"hada_t{side}", ()), a, b, weight)
    return flat(a) == (weight[0], b[0]) and flat(b)[1] == flat(weight)[1]


def change(_: Array, parts: Parts) -> Array:
    """Return the element-wise product of the two halves."""
    first = _half(parts, "1")
    first *= _half(parts, "2")
    return first


def _half(parts: Parts, side: str) -> Array:
    a, b = parts[f"hada_w{side}_a"], parts[f"hada_w{side}_b"]
    core = parts.get(f"hada_t{side}")
    return matrix(a) @ matrix(b) if core is None else tucker(core, a, b)


LOHA = Kind(
    name="LoHa",
    endings={f".{part}": part for part in (*sorted(PLAIN), "hada_t1", "hada_t2")},
    needs=(PLAIN,),
    fits=fits,
    change=change,
    rank=lambda shapes: shapes["hada_w1_b"][0],
)
