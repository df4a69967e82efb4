"""A bmodel's tables read and written: against the vendor's schema, its reader, and themselves."""

import re
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import InputError
from targets.sophgo.bmodel import schema
from targets.sophgo.bmodel.kinds import (
    Binary,
    Child,
    Field,
    Inline,
    Kind,
    Many,
    Number,
    Struct,
    Table,
    Text,
    binaries,
    fields_of,
    with_binaries,
)
from targets.sophgo.bmodel.reading import (
    HEADER_SIZE,
    DamagedTableError,
    read_bmodel,
    read_model,
    stages,
)
from targets.sophgo.bmodel.schema import Model
from targets.sophgo.bmodel.writing import header_of
from targets.sophgo.toolchain import TpuMlir

NUMBERS = {
    "B": st.integers(0, 255),
    "I": st.integers(0, 2**32 - 1),
    "Q": st.integers(0, 2**64 - 1),
    "f": st.floats(width=32, allow_nan=False),
    "i": st.integers(-(2**31), 2**31 - 1),
}
NAMES = {"I": "uint32", "Q": "uint64", "i": "int32", "f": "float32", "B": "uint8"}


def values(kind: Kind) -> st.SearchStrategy[Any]:
    match kind:
        case Number(code):
            return NUMBERS[code]
        case Text():
            return st.text(max_size=9)
        case Inline(cls):
            return st.builds(cls, *(NUMBERS[code] for code in cls.layout[1:]))
        case Child(cls):
            return tables(cls)
        case Many(Number("B")):
            return st.binary(max_size=40)
        case Many(item):
            return st.lists(values(item), max_size=3).map(tuple)


def tables(cls: type[Table]) -> st.SearchStrategy[Any]:
    """Any table: a few of its fields, and all that it must have."""
    return st.builds(
        cls,
        **{
            field.name: values(field.kind)
            if field.required
            else st.one_of(st.just(field.default), values(field.kind))
            for field in fields_of(cls)
        },
    )


def full_model() -> Model:
    """A model in which every field of every table has a value of its own."""
    numbers = count(1)

    def value(kind: Kind) -> Any:
        match kind:
            case Number(code):
                return next(numbers) / 2 if code == "f" else next(numbers)
            case Text():
                return f"text {next(numbers)}"
            case Inline(cls):
                return cls(*([0] * 2 if cls is Binary else (next(numbers) for _ in range(3))))
            case Child(cls):
                return cls(**{field.name: value(field.kind) for field in fields_of(cls)})
            case Many(Number("B")):
                return bytes([next(numbers) % 256 for _ in range(5)])
            case Many(item):
                return value(item), value(item)

    made = value(Child(Model))
    assert isinstance(made, Model)
    return made


def as_printed(value: Any) -> Any:
    """What the vendor's ``--print`` shows for a value of the schema."""
    if isinstance(value, Table):
        return {
            field.name: as_printed(getattr(value, field.name)) for field in fields_of(type(value))
        }
    if isinstance(value, Struct):
        return vars(value)
    return [as_printed(one) for one in value] if isinstance(value, tuple | bytes) else value


@given(model=tables(Model))
def test_what_is_written_is_read(model: Model) -> None:
    assert read_model(header_of(model, 0)[HEADER_SIZE:]) == model


def test_every_field_has_its_place() -> None:
    model = full_model()
    header = header_of(model, 4096)
    assert read_model(header[HEADER_SIZE:]) == model
    assert len(header) % 4096 == 0
    assert struct.unpack_from("<IIIQ", header) == (0xFF55AAEE, 64, len(header) - 64, 4096)


def test_byte_vectors_know_where_they_are(make_bmodel: Callable[..., Path]) -> None:
    bmodel = read_bmodel(make_bmodel("a"))
    ((_, stage),) = stages(bmodel.model)
    assert stage.coeff_mem is not None
    at = HEADER_SIZE + stage.coeff_mem.places["check_code"]
    assert bmodel.path.read_bytes()[at : at + 32] == stage.coeff_mem.check_code
    assert len(stage.coeff_mem.check_code) == 32


def test_binaries_are_walked_by_id() -> None:
    seen: list[Binary] = []

    def change(binary: Binary) -> Binary:
        seen.append(binary)
        return Binary(len(seen), binary.size)

    changed = with_binaries(full_model(), change)
    assert list(binaries(changed)) == [Binary(n + 1, 0) for n in range(len(seen))]
    assert with_binaries(changed, lambda binary: replace(binary, start=0)) == full_model()


@given(data=st.binary(max_size=200))
def test_random_tables_are_refused_or_read(data: bytes) -> None:
    try:
        read_model(data)
    except DamagedTableError:
        return


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_any_damage_is_one_line(
    cut: float, flips: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(header_of(with_binaries(full_model(), lambda _: Binary(0, 8)), 4096))
    for where, value in flips:
        content[int(where * (len(content) - 1))] = value
    content += bytes(4096)
    path = tmp_path_factory.getbasetemp() / "damaged.bmodel"
    path.write_bytes(content if flips else content[: int(cut * len(content))])
    said = str(path)
    try:
        read_bmodel(path)
    except InputError as error:
        said = str(error)
    assert said.startswith(str(path))
    assert "\n" not in said


def test_a_table_cannot_be_read_over_and_over() -> None:
    builder = flatbuffers.Builder()

    def vector(offset: int, length: int) -> int:
        builder.StartVector(4, length, 4)
        for _ in range(length):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def table(slots: dict[int, int]) -> int:
        builder.StartObject(23)
        for slot, offset in slots.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return int(builder.EndObject())

    text, nothing = builder.CreateString("x"), vector(0, 0)
    stage = table({0: nothing, 1: nothing})
    net = table({0: text, 3: vector(stage, 3000)})
    root = table({0: text, 1: text, 2: text, 3: text, 4: vector(net, 3000)})
    builder.Finish(root)
    start = time.process_time()
    with pytest.raises(DamagedTableError, match="refer to each other too often"):
        read_model(bytes(builder.Output()))  # nine million stages
    assert time.process_time() - start < 2


@pytest.mark.slow
def test_the_schema_is_the_vendors(tpu_mlir: TpuMlir) -> None:
    source = tpu_mlir.package / "include/tpu_mlir/Builder/BM168x/bmodel.fbs"
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", source.read_text(), flags=re.DOTALL)
    pattern = r"(\w+)\s*:\s*(\[?\w+\]?)\s*(?:=\s*(\S+)\s*)?\(([^)]*)\)"
    for name, body in re.findall(r"table (\w+) \{(.*?)\}", text, re.DOTALL):
        if name in {"NetStatic", "NetDynamic"}:
            continue
        found = {
            (field, int(re.findall(r"id:\s*(\d+)", more)[0]), kind, default, "required" in more)
            for field, kind, default, more in re.findall(pattern, body)
            if "NetStatic" not in kind and "NetDynamic" not in kind
        }
        ours = {
            (field.name, field.id, type_name(field.kind), stated(field), field.required)
            for field in fields_of(getattr(schema, name))
        }
        assert ours == found, name


def type_name(kind: Kind) -> str:
    match kind:
        case Number(code):
            return NAMES[code]
        case Text():
            return "string"
        case Inline(struct_):
            return struct_.__name__
        case Child(table):
            return table.__name__
        case Many(item):
            return f"[{type_name(item)}]"


def stated(field: Field) -> str:
    """The default as the vendor's file states it: where it is not 0, and once where it is."""
    if field.name == "zero_point":
        return "0"
    return str(field.default) if isinstance(field.kind, Number) and field.default else ""


@pytest.mark.slow
def test_the_vendors_program_reads_what_is_written(
    printed: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "full.bmodel"
    path.write_bytes(header_of(full_model(), 4096) + bytes(4096))
    assert printed(path) == as_printed(full_model())


@pytest.mark.slow
@pytest.mark.parametrize("component", ["vae_encoder", "vae_decoder"])
def test_what_the_vendor_wrote_is_read(
    component: str, two_sizes: Callable[[str], list[Path]], printed: Callable[[Path], Any]
) -> None:
    for path in two_sizes(component):
        expected = without_defaults(printed(path))
        assert without_defaults(as_printed(read_bmodel(path).model)) == expected


def without_defaults(value: Any) -> Any:
    """The same without what is empty: whether an empty vector is stored says nothing."""
    if isinstance(value, list):
        return [without_defaults(one) for one in value]
    if isinstance(value, dict):
        kept = {key: without_defaults(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (None, "", [])}
    return value
