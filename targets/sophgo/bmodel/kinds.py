"""How the tables of a bmodel are described, and how they are walked.

A table is a dataclass whose fields carry their id and type, in the order of their ids: the order in
which the vendor's tools walk a table. A field that is absent from a file has its default, as in the
vendor's own objects.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar


@dataclass(frozen=True)
class Number:
    """A scalar; `code` as in the module `struct`."""

    code: str


@dataclass(frozen=True)
class Text:
    """A string in UTF-8."""


@dataclass(frozen=True)
class Inline:
    """A struct, stored inside the table that has it."""

    struct: "type[Struct]"


@dataclass(frozen=True)
class Child:
    """Another table."""

    table: "type[Table]"


@dataclass(frozen=True)
class Many:
    """A vector; one of numbers of code "B" is read as bytes."""

    item: Number | Inline | Child


Kind = Number | Text | Inline | Child | Many


@dataclass(frozen=True)
class Field:
    """One field of a table: Python name, id in the vtable, type, default, whether it must be."""

    name: str
    id: int
    kind: Kind
    default: Any
    required: bool


def described(identifier: int, kind: Kind, default: object, *, required: bool = False) -> Any:
    """A field of any kind; `identifier` as in the schema."""
    return field(default=default, metadata={"id": identifier, "kind": kind, "required": required})


def uint32(identifier: int) -> Any:
    """A field of 32 bits without a sign."""
    return described(identifier, Number("I"), 0)


def int32(identifier: int, default: int = 0) -> Any:
    """A field of 32 bits with a sign."""
    return described(identifier, Number("i"), default)


def uint64(identifier: int) -> Any:
    """A field of 64 bits without a sign."""
    return described(identifier, Number("Q"), 0)


def text(identifier: int, *, required: bool = False) -> Any:
    """A field that holds a name."""
    return described(identifier, Text(), "", required=required)


def binary(identifier: int, *, required: bool = False) -> Any:
    """A field that holds a Binary or nothing."""
    return described(identifier, Inline(Binary), None, required=required)


def table(identifier: int, table: "type[Table]") -> Any:
    """A field that points to one table or nothing."""
    return described(identifier, Child(table), None)


def numbers(identifier: int, code: str) -> Any:
    """A field that points to numbers; bytes for the code "B"."""
    return described(identifier, Many(Number(code)), b"" if code == "B" else ())


def tables(identifier: int, table: "type[Table]", *, required: bool = False) -> Any:
    """A field that points to tables."""
    return described(identifier, Many(Child(table)), (), required=required)


class Struct:
    """A struct: its numbers one after another, as `layout` says in the terms of `struct`."""

    layout: ClassVar[str]


@dataclass(frozen=True)
class Binary(Struct):
    """A run of bytes: `start` counts from where the FlatBuffer ends, `size` in bytes."""

    layout: ClassVar[str] = "<QQ"

    start: int
    size: int

    @property
    def end(self) -> int:
        """Where the byte after the last one would be."""
        return self.start + self.size


@dataclass(frozen=True)
class Table:
    """A table. `places`: where the bytes of its byte vectors begin in the FlatBuffer it was in."""

    places: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False, kw_only=True)


AnyTable = TypeVar("AnyTable", bound=Table)


_FIELDS: dict[type[Table], tuple[Field, ...]] = {}


def fields_of(table: type[Table]) -> tuple[Field, ...]:
    """The fields of a table, by rising id."""
    if table not in _FIELDS:
        _FIELDS[table] = tuple(
            Field(f.name, f.metadata["id"], f.metadata["kind"], f.default, f.metadata["required"])
            for f in fields(table)
            if "id" in f.metadata
        )
    return _FIELDS[table]


def binaries(table: Table) -> Iterator[Binary]:
    """Every Binary of a table and of those below it, in the order of the schema."""
    for field_ in fields_of(type(table)):
        value = getattr(table, field_.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Binary):
                yield one
            elif isinstance(one, Table):
                yield from binaries(one)


def with_binaries(table: AnyTable, change: Callable[[Binary], Binary]) -> AnyTable:
    """The table with every Binary changed, called in the order of the schema."""

    def changed(value: Any) -> Any:
        if isinstance(value, Binary):
            return change(value)
        if isinstance(value, Table):
            return with_binaries(value, change)
        return tuple(map(changed, value)) if isinstance(value, tuple) else value

    return replace(
        table, **{f.name: changed(getattr(table, f.name)) for f in fields_of(type(table))}
    )
