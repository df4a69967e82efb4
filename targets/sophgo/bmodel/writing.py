"""Tables -> the first bytes of a bmodel: its header and its FlatBuffer, as the vendor writes them.

A FlatBuffer's bytes depend on the order in which it is built. Stages are built as flatc's object
API packs them (children in the order of the schema, then the fields from wide to narrow, last id
first); `Net` and `Model` as the vendor's `ModelGen::Finish` does (tpu-mlir,
lib/Builder/bmodel.cpp). Equal tables so become equal bytes.
"""

import struct
from collections.abc import Sequence
from typing import Any

import flatbuffers

from targets.sophgo.bmodel.kinds import (
    Child,
    Field,
    Inline,
    Many,
    Number,
    Struct,
    Table,
    Text,
    fields_of,
)
from targets.sophgo.bmodel.reading import HEADER, HEADER_SIZE, MAGIC
from targets.sophgo.bmodel.schema import Model, Net

ALIGNMENT = 4096
"""In bytes, of everything that a bmodel points to, counted from the beginning of the file."""

_NAMES = {"I": "Uint32", "i": "Int32", "Q": "Uint64", "f": "Float32"}
"""A number's code -> how the builder's methods for it are called."""

_NET_ORDER = ("name", "cascade", "parameter", "addr_mode")
_MODEL_ORDER = (
    *("chip", "type", "time", "version", "net", "neuron_size", "kernel_module", "device_num"),
    *("cpuop_module", "bmodel_type", "lib_backend"),
)


def aligned(size: int) -> int:
    """`size`, or the next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def header_of(model: Model, binary_size: int) -> bytes:
    """Everything before the region of `binary_size` bytes: header, FlatBuffer, zeros."""
    tables = _Writer().model(model)
    size = aligned(HEADER_SIZE + len(tables)) - HEADER_SIZE
    return HEADER.pack(MAGIC, HEADER_SIZE, size, binary_size) + tables.ljust(size, b"\0")


class _Writer:
    """One FlatBuffer under construction. Methods return the offset of what they wrote."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1 << 16)

    def model(self, model: Model) -> bytes:
        """The whole buffer."""
        # The vendor packs every stage when it is added, and the rest when all are there.
        stages = [[self._packed(stage) for stage in net.parameter] for net in model.net]
        nets = [self._net(net, of_net) for net, of_net in zip(model.net, stages, strict=True)]
        written = {
            "type": self._builder.CreateString(model.type),
            "version": self._builder.CreateString(model.version),
            "net": self._tables(nets),
            "chip": self._builder.CreateString(model.chip),
            "time": self._builder.CreateString(model.time),
        }
        modules = {
            name: module
            for name, module in (
                ("kernel_module", model.kernel_module),
                ("cpuop_module", model.cpuop_module),
            )
            if module is not None
        }
        # One name for both where it is the same.
        names = dict.fromkeys(module.file_name for module in modules.values())
        strings = {name: self._builder.CreateString(name) for name in names}
        for name, module in modules.items():
            file_name = {"file_name": strings[module.file_name]}
            written[name] = self._table(module, file_name)
        self._builder.Finish(self._table(model, written, _MODEL_ORDER))
        return bytes(self._builder.Output())

    def _net(self, net: Net, stages: Sequence[int]) -> int:
        written = {"parameter": self._tables(stages)} if stages else {}
        if net.cascade is not None:
            main_name = {"main_name": self._builder.CreateString(net.cascade.main_name)}
            written["cascade"] = self._table(net.cascade, main_name)
        written["name"] = self._builder.CreateString(net.name)
        return self._table(net, written, _NET_ORDER)

    def _packed(self, table: Table) -> int:
        fields = fields_of(type(table))
        written = {
            field.name: self._outside(field, getattr(table, field.name))
            for field in fields
            if not isinstance(field.kind, Number | Inline)
            and (field.required or getattr(table, field.name))
        }
        order = sorted(fields, key=lambda field: (-_width(field), -field.id))
        return self._table(table, written, [field.name for field in order])

    def _outside(self, field: Field, value: Any) -> int:
        """A value that its table points to."""
        match field.kind:
            case Text():
                return int(self._builder.CreateString(value))
            case Many(Number("B")):
                return int(self._builder.CreateByteVector(value))
            case Many(Child()):
                return self._tables([self._packed(child) for child in value])
            case Many(Number(code)):
                size = struct.calcsize(f"<{code}")
                self._builder.StartVector(size, len(value), size)
                for number in reversed(value):
                    self._number(code, number)
                return int(self._builder.EndVector())
            case Many(Inline(cls)):
                self._builder.StartVector(struct.calcsize(cls.layout), len(value), _align(cls))
                for each in reversed(value):
                    self._struct(each)
                return int(self._builder.EndVector())
            case _:
                return self._packed(value)

    def _tables(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _table(self, table: Table, written: dict[str, int], order: Sequence[str] = ()) -> int:
        """A table that points to what is `written`; `order`: its fields from the last byte on."""
        fields = {field.name: field for field in fields_of(type(table))}
        self._builder.StartObject(max(field.id for field in fields.values()) + 1)
        for name in order or fields:
            self._slot(fields[name], getattr(table, name), written)
        return int(self._builder.EndObject())

    def _slot(self, field: Field, value: Any, written: dict[str, int]) -> None:
        if field.name in written:
            self._builder.PrependUOffsetTRelative(written[field.name])
        elif isinstance(field.kind, Number) and value != field.default:
            self._number(field.kind.code, value)
        elif isinstance(value, Struct):
            self._struct(value)
        else:
            return
        self._builder.Slot(field.id)

    def _number(self, code: str, value: float) -> None:
        getattr(self._builder, f"Prepend{_NAMES[code]}")(value)

    def _struct(self, value: Struct) -> None:
        codes = value.layout.removeprefix("<")
        self._builder.Prep(_align(type(value)), struct.calcsize(value.layout))
        for code, number in reversed(list(zip(codes, vars(value).values(), strict=True))):
            self._number(code, number)


def _width(field: Field) -> int:
    """Bytes by which flatc sorts a field; it counts a struct like an offset."""
    return struct.calcsize(f"<{field.kind.code}") if isinstance(field.kind, Number) else 4


def _align(cls: type[Struct]) -> int:
    return max(struct.calcsize(f"<{code}") for code in cls.layout.removeprefix("<"))
