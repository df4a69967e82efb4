"""Holds JSON against `report.schema.json`: the part of JSON Schema that it is written in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import validate.report

SCHEMA = json.loads(Path(validate.report.__file__).with_name("report.schema.json").read_text())

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
UNDERSTOOD = {
    "$schema", "$defs", "$ref", "title", "description", "type", "const", "enum", "anyOf", "items",
    "properties", "required", "additionalProperties",
}  # fmt: skip


def problems(value: Any, schema: Any = SCHEMA, where: str = "report") -> Iterator[str]:
    """Every place that is not as the schema says; raises AssertionError for unknown keywords."""
    assert set(schema) <= UNDERSTOOD, set(schema) - UNDERSTOOD
    if "$ref" in schema:
        yield from problems(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    for allowed in ([schema["const"]] if "const" in schema else [], schema.get("enum", [])):
        if allowed and value not in allowed:
            yield f"{where}: {value!r} is none of {allowed}"
    if "anyOf" in schema and all([*problems(value, one, where)] for one in schema["anyOf"]):
        yield f"{where}: {value!r} is none of what it may be"
    named = schema.get("type", [])
    kinds = [named] if isinstance(named, str) else named
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{where}: {value!r} is no {' or '.join(kinds)}"
    elif isinstance(value, dict):
        yield from _members(value, schema, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from problems(item, schema.get("items", {}), f"{where}[{index}]")


def _members(value: dict[str, Any], schema: Any, where: str) -> Iterator[str]:
    known = schema.get("properties", {})
    yield from (
        f"{where}: lacks {name}" for name in schema.get("required", []) if name not in value
    )
    for name, member in value.items():
        rule = known.get(name, schema.get("additionalProperties", {}))
        if rule is False:
            yield f"{where}.{name}: not expected"
        else:
            yield from problems(member, rule or {}, f"{where}.{name}")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
