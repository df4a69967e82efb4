"""A .mnn file -> its ports, and where every parameter of an operation lies.

The file is a FlatBuffer (`schema/default/MNN.fbs` of MNN 3.6.1, root table `Net`). Parameters lie
in it, or as stretches of the file `<model>.weight` beside it, to which the field `external` of an
operation points: an offset, then the bytes of each vector one behind the other.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from converter.weights import Array
from targets.mnn.encoding import Encoding

INT, BYTE = number_types.Int32Flags, number_types.Uint8Flags

WEIGHTS_SUFFIX = ".weight"
"""Behind the whole name of a model: where MNN looks for its parameters."""

BLOB, CONVOLUTION, INPUT, LAYER_NORM = 7, 9, 21, 88
"""Members of the union `OpParameter` that are read here."""
WEIGHTLESS = {
    0: "NONE", 2: "ArgMax", 4: "Axis", 6: "BinaryOp", 8: "CastParam", 18: "Gather", 19: "GatherV2",
    22: "Interp", 25: "MatMul", 29: "Permute", 50: "ReductionParam", 55: "Reshape", 61: "Slice",
    62: "SliceTf", 64: "SqueezeParam", 65: "StridedSliceParam", 66: "TensorConvertInfo",
    70: "UnaryOp", 101: "ShapeParam",
}  # fmt: skip
"""Members that hold no weights."""

FLOAT, HALF = 1, 19
DTYPES = {1: "float32", 3: "int32", 9: "int64", 19: "float16"}
"""Numbers of `DataType`, as far as ports and constants have them."""

FLOAT16_CODES, INTEGER_CODES = 3, 1
"""Kinds of `IDSTQuan`: half precision, and codes with scales."""


class UnreadableModelError(ValueError):
    """Not a .mnn file, or one with operations whose parameters are not known here."""


@dataclass(frozen=True)
class Stretch:
    """Bytes of the .mnn file itself (`inside`) or of the weights file."""

    inside: bool
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Where they end."""
        return self.offset + self.nbytes


@dataclass(frozen=True)
class Parameter:
    """A vector of an operation. `role` is "filter", "bias", "norm", "constant" or "integers".

    `shape` is that of the elements: [outputs, elements of one] of a filter, else flat. Integers
    are bytes to anybody here: no weight is one.
    """

    operation: str
    role: str
    shape: tuple[int, ...]
    encoding: Encoding
    at: Stretch


@dataclass(frozen=True)
class PortOf:
    """An input of the network; of a symbolic extent the file says -1."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """What a .mnn file says of itself. `uuid` is where its 36 letters of identity lie."""

    inputs: tuple[PortOf, ...]
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    operations: int
    uuid: Stretch

    @property
    def weights_nbytes(self) -> int:
        """Bytes that the weights file must have."""
        return max((p.at.end for p in self.parameters if not p.at.inside), default=0)


def read_model(path: Path) -> Model:
    """Read a file; raises UnreadableModelError."""
    content = path.read_bytes()
    try:
        return _read(_Node(bytearray(content), _root(content)))
    except (IndexError, OverflowError, TypeError, ValueError, struct.error) as e:
        raise UnreadableModelError(f"{path}: no model that can be read here: {e}") from e


def _root(content: bytes) -> int:
    if len(content) < 8:
        raise ValueError(f"it has {len(content)} bytes")
    root: int = encode.Get(number_types.UOffsetTFlags.packer_type, content, 0)
    if not 4 <= root < len(content):
        raise ValueError("it does not begin with the offset of a table")
    return root


class _Node(Table):  # type: ignore[misc]  # flatbuffers has no types
    """A table of the FlatBuffer; fields are named by their numbers in the schema."""

    def number(self, field: int, kind: Any = INT, default: int = 0) -> int:
        """A scalar."""
        at = self._at(field)
        return int(self.Get(kind, at)) if at else default

    def child(self, field: int) -> "_Node | None":
        """A table, also one of a union."""
        at = self._at(field)
        return _Node(self.Bytes, self.Indirect(at)) if at else None

    def text(self, field: int) -> str:
        """A string; empty if it is not there."""
        at = self._at(field)
        return bytes(self.String(at)).decode() if at else ""

    def vector(self, field: int, dtype: str) -> tuple[int, Array]:
        """Where a vector of numbers lies, and the numbers; none if it is not there."""
        offset = self.Offset(4 + 2 * field)
        if not offset:
            return 0, np.empty(0, dtype)
        start = self.Vector(offset)
        return start, np.frombuffer(self.Bytes, dtype, self.VectorLen(offset), start)

    def children(self, field: int) -> Iterator["_Node"]:
        """The tables of a vector."""
        offset = self.Offset(4 + 2 * field)
        for index in range(self.VectorLen(offset) if offset else 0):
            yield _Node(self.Bytes, self.Indirect(self.Vector(offset) + 4 * index))

    def texts(self, field: int) -> list[str]:
        """The strings of a vector."""
        offset = self.Offset(4 + 2 * field)
        count = self.VectorLen(offset) if offset else 0
        return [bytes(self.String(self.Vector(offset) + 4 * i)).decode() for i in range(count)]

    def stretch(self, field: int, dtype: str = "<f4") -> Stretch:
        """Where a vector of numbers lies in the file."""
        start, values = self.vector(field, dtype)
        return Stretch(True, start, values.nbytes)

    def _at(self, field: int) -> int:
        offset = self.Offset(4 + 2 * field)
        return int(offset + self.Pos) if offset else 0


def _read(net: _Node) -> Model:
    if any(net.children(10)):
        raise ValueError("it has subgraphs")
    operations = list(net.children(3))
    if not operations:
        raise ValueError("it has no operations")
    uuid_at = net.Offset(4 + 2 * 11)
    start = net.Vector(uuid_at) if uuid_at else 0
    return Model(
        inputs=tuple(_inputs(operations)),
        outputs=tuple(net.texts(4)),
        parameters=tuple(p for op in operations for p in _parameters(op)),
        operations=len(operations),
        uuid=Stretch(True, start, net.VectorLen(uuid_at) if uuid_at else 0),
    )


def _inputs(operations: list[_Node]) -> Iterator[PortOf]:
    for operation in operations:
        if operation.number(1, BYTE) == INPUT and (port := operation.child(2)) is not None:
            _, dims = port.vector(0, "<i4")
            dtype = DTYPES[port.number(1, default=FLOAT)]
            yield PortOf(operation.text(3), dtype, tuple(dims.tolist()))


def _parameters(operation: _Node) -> Iterator[Parameter]:
    kind, main, name = operation.number(1, BYTE), operation.child(2), operation.text(3)
    if kind in WEIGHTLESS or kind == INPUT:
        return
    if main is None or kind not in (BLOB, CONVOLUTION, LAYER_NORM):
        raise ValueError(f"operation {name!r} has parameters of kind {kind}, unknown here")
    if kind == CONVOLUTION:
        yield from _convolution(name, main)
    elif kind == LAYER_NORM:
        yield from _norm(name, main)
    else:
        yield from _constant(name, main)


def _convolution(name: str, main: _Node) -> Iterator[Parameter]:
    common, codes = main.child(0), main.child(3)
    _, external = main.vector(6, "<i8")
    if common is None or main.child(4) is not None or main.child(5) is not None:
        raise ValueError(f"convolution {name!r} is of a kind that is unknown here")
    if not len(external):
        raise ValueError(f"convolution {name!r} keeps its weights in the model")
    outputs, inputs = common.number(10), common.number(11)
    window = common.number(2, default=1) * common.number(3, default=1)
    shape = (outputs, inputs * window // common.number(9, default=1))
    offset, filter_bytes, *others = map(int, external)
    encoding = Encoding(32)
    if codes is not None:
        scales, *others = others
        encoding = _codes(name, codes, scales, shape)
        filter_bytes += scales
    at = Stretch(False, offset, filter_bytes)
    if encoding.nbytes(prod(shape)) != filter_bytes:
        raise ValueError(f"the filter of {name!r} has {filter_bytes} bytes")
    yield Parameter(name, "filter", shape, encoding, at)
    yield Parameter(
        name, "bias", (others[0] // 4,), Encoding(32), Stretch(False, at.end, others[0])
    )


def _codes(name: str, codes: _Node, scales: int, shape: tuple[int, int]) -> Encoding:
    kind = codes.number(2)
    if kind == FLOAT16_CODES and not scales:
        return Encoding(16)
    bits, groups = codes.number(7), scales // 8
    if kind != INTEGER_CODES or bits not in (8, 4) or codes.number(9) != groups or not groups:
        raise ValueError(f"the filter of {name!r} is kept in a way that is unknown here")
    return Encoding(bits, prod(shape) // groups)


def _norm(name: str, main: _Node) -> Iterator[Parameter]:
    _, external = main.vector(5, "<i8")
    if len(external):
        start = int(external[0])
        for nbytes in map(int, external[1:]):
            at = Stretch(False, start, nbytes)
            yield Parameter(name, "norm", (nbytes // 4,), Encoding(32), at)
            start = at.end
        return
    for field in (2, 3):
        at = main.stretch(field)
        if at.nbytes:
            yield Parameter(name, "norm", (at.nbytes // 4,), Encoding(32), at)


def _constant(name: str, main: _Node) -> Iterator[Parameter]:
    dtype = main.number(2, default=FLOAT)
    _, external = main.vector(9, "<i8")
    if dtype not in (FLOAT, HALF):
        if len(external):
            at = Stretch(False, int(external[0]), int(external[1]))
            yield Parameter(name, "integers", (at.nbytes,), Encoding(8), at)
        return
    encoding = Encoding(32 if dtype == FLOAT else 16)
    if len(external):
        at = Stretch(False, int(external[0]), int(external[1]))
    else:
        at = main.stretch(7) if dtype == FLOAT else main.stretch(3, "<u1")
    if at.nbytes:
        yield Parameter(name, "constant", (at.nbytes * 8 // encoding.bits,), encoding, at)
