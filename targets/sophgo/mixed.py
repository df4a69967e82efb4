"""What an `int8-mixed` network computes in INT8, and what in half precision.

INT8 are convolutions and products with weights. All else is F16, and so are, told by the path of
the weight:

- what the residual stream passes through unnormalised, and what all else follows from: the first
  and the last convolution, the shortcuts of residual blocks, the time embedding and what is made of
  it. Their ranges are the widest, and they cost next to nothing. Others leave the same ones out: a
  shortcut behind a concatenation is what Q-Diffusion (arXiv 2302.04304) quantises in two parts;
- what makes keys and values of the prompt: CLIP gives its first token single values around 30, the
  others 1 (no checkpoint of that size was here to measure it with);
- what works at full latent size, but for the first convolution of a residual block and the wide
  layer of a feed-forward, which are half of its products with weights.

What each choice costs and gains, and where the error comes from, is in benchmarks/sophgo_int8.md.
"""

import re
from collections.abc import Collection

from targets.sophgo.top_graph import MOVING, TopGraph, multiplies_a_weight

SENSITIVE = re.compile(
    r"(^|\.)(conv_in|conv_out|conv_shortcut|time_embedding|time_emb_proj|add_embedding"
    r"|controlnet_\w+|attn2\.to_[kv])\."
)
"""In the path of a weight, wherever it is: stays in half precision."""

OUTERMOST = re.compile(r"^(down_blocks\.0|up_blocks\.(?P<number>\d+))\.(attentions|resnets)\.")
"""The path of a weight that works at full latent size, if `number` is that of the last block."""

LARGEST = re.compile(r"\.(conv1|ff\.net\.0)\.")
"""In the path of a weight of such a block: INT8 nevertheless; its input is normalised."""


def products_in_int8(graph: TopGraph) -> list[str]:
    """The names of the operations that are computed in INT8."""
    last = _last_block(graph)
    return [
        name
        for name, operation in graph.items()
        if multiplies_a_weight(graph, operation) and not _stays(operation.operands[1], last)
    ]


def of_16_bits(graph: TopGraph, int8: Collection[str]) -> list[str]:
    """Those operations in INT8 whose results get 16 bits: all that no other in INT8 takes."""
    taken: set[str] = set()
    for name, operation in reversed(list(graph.items())):
        if name in int8 or (operation.kind in MOVING and name in taken):
            taken.update(operation.operands)
    return [name for name in int8 if name not in taken]


def _last_block(graph: TopGraph) -> str | None:
    """The number of the last block on the way up."""
    numbers = {found["number"] for name in graph if (found := OUTERMOST.match(name))}
    return max(numbers - {None}, key=int, default=None)


def _stays(weight: str, last: str | None) -> bool:
    """Whether what multiplies by this weight stays in half precision."""
    if SENSITIVE.search(weight):
        return True
    outermost = OUTERMOST.match(weight)
    if outermost is None or outermost["number"] not in (None, last):
        return False
    return LARGEST.search(weight) is None
