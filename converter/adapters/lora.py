"""LoRA and LoCon: ``alpha / rank * up @ down``, or with a Tucker kernel between the two.

Sources: https://arxiv.org/abs/2106.09685; `alpha` and the layout of convolutions as in kohya's
sd-scripts; `lora_mid` as in LyCORIS (LoCon). PEFT calls the factors A (down) and B (up); its bias
of B, scaled like their product, adds to the layer's, and it turns the factors of an embedding
round.
"""

from converter.adapters.base import Kind, Parts, Shape, Shapes, flat, matrix
from converter.adapters.tucker import tucker, tucker_fits
from converter.weights import Array


def fits(shapes: Shapes, weight: Shape) -> bool:
    """Down is [rank, inputs, *kernel], up [outputs, rank]; with mid the kernel is mid's."""
    down, up = shapes["down"], shapes["up"]
    if min(len(down), len(up), len(weight)) < 2:
        return False
    if "mid" in shapes:
        return tucker_fits(shapes["mid"], flat(up)[::-1], flat(down), weight)
    return (
        flat(up) == (weight[0], down[0])
        and down[1] == weight[1]
        and flat(down)[1] == flat(weight)[1]
    )


def change(_: Array, parts: Parts) -> Array:
    """Return the product of the factors."""
    up, down = matrix(parts["up"]), matrix(parts["down"])
    return tucker(parts["mid"], up.T, down) if "mid" in parts else up @ down


LORA = Kind(
    name="LoRA",
    endings={
        ".lora_down.weight": "down",
        ".lora_up.weight": "up",
        ".lora_mid.weight": "mid",
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        ".lora.down.weight": "down",
        ".lora.up.weight": "up",
        "_lora.down.weight": "down",
        "_lora.up.weight": "up",
        ".lora_linear_layer.down.weight": "down",
        ".lora_linear_layer.up.weight": "up",
    },
    needs=(frozenset({"down", "up"}),),
    fits=fits,
    change=change,
    rank=lambda shapes: shapes["down"][0],
)


def embedding_fits(shapes: Shapes, weight: Shape) -> bool:
    """A is [rank, rows of the embedding], B [its width, rank]."""
    down, up = shapes["embedding_A"], shapes["embedding_B"]
    return len(down) == len(up) == 2 and down[0] == up[1] and (down[1], up[0]) == weight


def bias_fits(shapes: Shapes, bias: Shape) -> bool:
    """One number an output."""
    return shapes["bias"] == bias


LORA_EMBEDDING = Kind(
    name="LoRA of an embedding",
    endings={".lora_embedding_A": "embedding_A", ".lora_embedding_B": "embedding_B"},
    needs=(frozenset({"embedding_A", "embedding_B"}),),
    fits=embedding_fits,
    change=lambda _, parts: parts["embedding_A"].T @ parts["embedding_B"].T,
    rank=lambda shapes: shapes["embedding_A"][0],
    outputs=1,
)
LORA_BIAS = Kind(
    name="bias of a LoRA",
    endings={".lora_B.bias": "bias"},
    needs=(frozenset({"bias"}),),
    fits=bias_fits,
    change=lambda _, parts: parts["bias"],
    tensor="bias",
    peft_rank=True,
)
