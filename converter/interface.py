"""The ports of a component: names, order, dtypes, and shapes in terms of batch and picture size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.sizes import Size

Dim = int | str
"""A fixed extent, or ``batch``, ``height``, ``width``, the latter two optionally ``/divisor``."""


def resolve(dim: Dim, batch: int, size: Size | None) -> int:
    """Evaluate one dimension; raises ValueError where a picture size is needed and none given."""
    if isinstance(dim, int):
        return dim
    if dim == "batch":
        return batch
    symbol, _, divisor = dim.partition("/")
    if size is None:
        raise ValueError(f"dimension {dim!r} needs a picture size")
    return {"height": size.height, "width": size.width}[symbol] // int(divisor or 1)


@dataclass(frozen=True)
class Port:
    """One input or output tensor. `dtype` is a numpy name ("float32", "int32", "int64")."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def at(self, batch: int, size: Size | None) -> tuple[int, ...]:
        """The concrete shape at one batch and picture size."""
        return tuple(resolve(dim, batch, size) for dim in self.shape)


@dataclass(frozen=True)
class Interface:
    """All ports of one component, in the order in which its consumer binds them."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def has_size(self) -> bool:
        """Whether any input depends on the picture size (a text encoder's does not)."""
        return any(
            isinstance(dim, str) and dim != "batch" for port in self.inputs for dim in port.shape
        )

    def input_shapes(self, batch: int, size: Size | None) -> dict[str, tuple[int, ...]]:
        """Concrete input shapes by name, in order."""
        return {port.name: port.at(batch, size) for port in self.inputs}

    def output_shapes(self, batch: int, size: Size | None) -> dict[str, tuple[int, ...]]:
        """Concrete output shapes by name, in order."""
        return {port.name: port.at(batch, size) for port in self.outputs}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` reads it back."""
        return {
            side: [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in ports]
            for side, ports in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Interface":
        """Read what `to_json` wrote."""
        inputs, outputs = (
            tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in data[side])
            for side in ("inputs", "outputs")
        )
        return cls(inputs, outputs)
