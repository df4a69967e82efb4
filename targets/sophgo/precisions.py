"""The precisions that tpu-mlir compiles, as data: what is kept in how many bits."""

from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError

BITS = {"f32": 32, "f16": 16, "bf16": 16, "int8": 8}
"""Of what the chip computes with."""


@dataclass(frozen=True)
class Precision:
    """One precision. `activations` is one of `BITS`.

    `matrix_bits` are those of the weights of matrix products, where they are fewer than those of
    the activations. With `mixed` only most convolutions and products with weights are in
    `activations` (`targets.sophgo.mixed`) and all else is in f16.
    """

    name: str
    activations: str
    matrix_bits: int | None = None
    mixed: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether the range of every tensor has to be known."""
        return self.activations == "int8"

    @property
    def quantize(self) -> str:
        """What `model_deploy` calls it."""
        return self.name.removesuffix("-mixed").upper()

    @property
    def weight_bytes(self) -> float:
        """Per weight that is not one of a matrix product, in a bmodel."""
        return BITS[self.activations] / 8 * (1 + (LEFT_IN_F16 if self.mixed else 0))

    @property
    def matrix_bytes(self) -> float:
        """Per weight of a matrix product; with scale and zero point of its group, if it has them.

        A group of `GROUP` weights has a scale of two bytes and a zero point of one.
        """
        if self.matrix_bits is None:
            return self.weight_bytes
        return self.matrix_bits / 8 + 3 / GROUP


GROUP = 64
"""Weights of one output that share a scale: tpu-mlir's default `--q_group_size`."""

LEFT_IN_F16 = 0.115
"""Share of the weights that `int8-mixed` keeps in 16 bits: measured of SD1.5's UNet."""

PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("f32", "f32"),
        Precision("f16", "f16"),
        Precision("bf16", "bf16"),
        Precision("w8f16", "f16", matrix_bits=8),
        Precision("w8bf16", "bf16", matrix_bits=8),
        Precision("w4f16", "f16", matrix_bits=4),
        Precision("w4bf16", "bf16", matrix_bits=4),
        Precision("int8", "int8"),
        Precision("int8-mixed", "int8", mixed=True),
    )
}
"""By the name that a user types."""

MODES = ("F32", "F16", "BF16", "INT8")
"""What a user's table can say of an operation."""


def modes_of(table: Path) -> dict[str, str]:
    """The operations and modes of a table of lines ``operation mode``; `#` begins a comment.

    Raises InputError for anything else.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(table.read_text().splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words and (len(words) != 2 or words[1].upper() not in MODES):
            raise InputError(
                f"{table}, line {number}: not an operation and one of {', '.join(MODES)}: write "
                "for example 'node_Conv_3 F16', with names from the quantize_table of an "
                "int8-mixed skeleton"
            )
        found.update([(words[0], words[1].upper())] if words else [])
    return found
