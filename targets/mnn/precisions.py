"""The precisions of MNN's files as data: in how many bits weights are kept, and how they run.

Activations are float32 on a CPU (a GPU computes in half precision). The exception are the kinds
with ``a8``: the same files, loaded in the memory mode "low", in which MNN brings the inputs of
every quantised layer to 8 bits as they come. That is another numeric result, so it has names of its
own.
"""

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Precision:
    """One precision. `bits` are those of the weights of convolutions and linear layers.

    With fewer than 16, every `block` inputs of an output (None: all of them) share a scale and a
    least value. `hqq` chooses these two by half-quadratic optimisation, else the least and the
    largest weight decide. `dynamic` brings activations to 8 bits too.
    """

    name: str
    bits: int
    block: int | None = None
    hqq: bool = False
    dynamic: bool = False

    @property
    def quantised(self) -> bool:
        """Whether weights are codes with scales."""
        return self.bits < 16

    @property
    def options(self) -> tuple[str, ...]:
        """What MNN's converter is told to write this format; HQQ changes only the values in it."""
        if self.bits == 32:
            return ()
        if self.bits == 16:
            return ("--fp16",)
        block = () if self.block is None else (f"--weightQuantBlock={self.block}",)
        return (f"--weightQuantBits={self.bits}", *block)

    @property
    def matrix_bytes(self) -> float:
        """Per weight of a linear layer, scales included."""
        scales = 0 if not self.quantised or self.block is None else 8 / self.block
        return self.bits / 8 + scales


BLOCK = 64
"""Inputs of an output that share a scale, where nothing else is said."""

STYLES: dict[str, tuple[int | None, bool]] = {
    "": (BLOCK, False),
    "-hqq": (BLOCK, True),
    "-b32": (32, False),
    "-channel": (None, False),
}
"""What may follow the bits: how many inputs share a scale, and whether HQQ chooses it."""

PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("f32", 32),
        Precision("f16", 16),
        *(
            Precision(f"w{bits}{'a8' if dynamic else ''}{style}", bits, block, hqq, dynamic)
            for bits, dynamic, (style, (block, hqq)) in product(
                (8, 4), (False, True), STYLES.items()
            )
        ),
    )
}
"""By the name that a user types."""
