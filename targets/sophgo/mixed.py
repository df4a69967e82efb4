"""What an `int8-mixed` network computes in INT8, and what in half precision.

INT8 are convolutions and products with weights; and what takes nothing but their results of 8 bits:
other orders of them, the scores of attention, a GELU (a look-up then). All else is F16, and so
are, told by the path of the weight:

- what the residual stream passes through unnormalised, and what all else follows from: the first
  and the last convolution, the shortcuts of residual blocks, the time embedding and what is made of
  it. Their ranges are the widest, and they cost next to nothing. Others leave the same ones out: a
  shortcut behind a concatenation is what Q-Diffusion (arXiv 2302.04304) quantises in two parts;
- what makes keys and values of the prompt: CLIP gives its first token single values around 30, the
  others 1 (no checkpoint of that size was here to measure it with);
- the linear layers of attention at full latent size, but for the wide one of the feed-forward;
  and its GELU.

Of the error that the UNet of the miniature makes without, 84 % came from the first kind
(benchmarks/sophgo_int8.md).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from targets.sophgo.top_graph import NOTHING, Operation, TopGraph, multiplies_a_weight, users_of

SENSITIVE = re.compile(
    r"(^|\.)(conv_in|conv_out|conv_shortcut|time_embedding|time_emb_proj|add_embedding"
    r"|controlnet_\w+|attn2\.to_[kv])\."
)
"""In the path of a weight, wherever it is: stays in half precision."""

OUTERMOST = re.compile(r"^(down_blocks\.0|up_blocks\.(?P<number>\d+))\.attentions\.")
"""The path of a weight that works at full latent size, if `number` is that of the last block."""

WIDE_LAYER = ".ff.net.0."
"""Half of what the linear layers of a transformer compute; its input is normalised."""

VIEWS = ("top.Permute", "top.Reshape", "top.Squeeze", "top.Unsqueeze")
"""Operations whose results are their inputs in another order or shape."""


@dataclass(frozen=True)
class Choice:
    """Names of operations: those in half precision, and those in INT8 whose results get 16 bits.

    What an INT8 operation gives is rounded to 8 bits or to 16. Where F16 comes next, 16 cost
    little, and 8 lose about as much as rounding its input does.
    """

    half: tuple[str, ...]
    wide: tuple[str, ...]

    @property
    def table(self) -> str:
        """What `model_deploy` reads: an operation and its mode on each line."""
        return "# op_name quantize_mode\n" + "".join(f"{name} F16\n" for name in self.half)


def choose(graph: TopGraph) -> Choice:
    """Decide for every operation of a network."""
    users = users_of(graph)
    last = _last_block(graph)
    int8: set[str] = set()
    for operation in graph.values():
        if multiplies_a_weight(graph, operation):
            if not _stays(operation.operands[1], last):
                int8.add(operation.name)
        elif operation.kind in VIEWS and operation.operands[0] in int8:
            int8.add(operation.name)
        elif operation.kind == "top.GELU" and (source := operation.operands[0]) in int8:
            if not _outermost(graph[source].operands[1], last):
                int8.add(operation.name)
        elif any(user.kind == "top.Softmax" for user in users[operation.name]):
            factors = [[*_scaled(graph, name)] for name in operation.operands[:2]]
            if operation.kind == "top.MatMul" and all(names[-1] in int8 for names in factors):
                int8.update([operation.name], *factors)
    computing = [op for op in graph.values() if op.kind not in NOTHING]
    half = [op.name for op in computing if op.name not in int8]
    wide = [op.name for op in computing if op.name in int8 and _leaves(op, users, int8)]
    return Choice(tuple(half), tuple(wide))


def _last_block(graph: TopGraph) -> str | None:
    """The number of the last block on the way up."""
    numbers = {found["number"] for name in graph if (found := OUTERMOST.match(name))}
    return max(numbers - {None}, key=int, default=None)


def _stays(weight: str, last: str | None) -> bool:
    """Whether what multiplies by this weight stays in half precision."""
    if SENSITIVE.search(weight):
        return True
    return _outermost(weight, last) and WIDE_LAYER not in weight


def _outermost(weight: str, last: str | None) -> bool:
    """Whether it belongs to attention at full latent size."""
    found = OUTERMOST.match(weight)
    return found is not None and found["number"] in (None, last)


def _scaled(graph: TopGraph, name: str) -> Iterator[str]:
    """An operation, and what it is a multiple of by a number."""
    yield name
    while graph[name].kind == "top.MulConst":
        name = graph[name].operands[0]
        yield name


def _leaves(operation: Operation, users: Mapping[str, list[Operation]], int8: set[str]) -> bool:
    """Whether the results of a product in INT8 go to half precision and nowhere else."""
    if operation.kind not in ("top.Conv", "top.MatMul"):
        return False
    return not any(user.name in int8 for user in users[operation.name])
