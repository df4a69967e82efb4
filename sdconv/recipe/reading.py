"""YAML -> recipe, strictly: whatever is not meant is one line that names the line.

The dataclasses say which keys there are and what they hold, so the reader knows no key by name.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from converter.errors import InputError
from converter.sizes import Size
from sdconv.recipe.recipe import Recipe

PLAIN = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
"""What a scalar is called in errors."""

READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text],
    Size: Size.parse,
}
"""Type -> how a scalar's text is read; raises ValueError, KeyError or InputError for any other."""


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file; raises InputError with the line of what is wrong."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not readable as a recipe ({e})") from e
    return parse_recipe(text, str(path))


def parse_recipe(text: str, name: str) -> Recipe:
    """Read a recipe's text; `name` begins every error."""
    reader = _Reader(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{name}{where}: not YAML: {e.problem}") from e
    if node is None:
        raise InputError(f"{name}: empty; write 'export:' with a checkpoint, see 'sdconv build -h'")
    recipe: Recipe = reader.read(node, Recipe, "the recipe")
    return recipe


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, node: yaml.Node, kind: Any, what: str) -> Any:
        """The value of a node, which has to be of that type; `what` is its key."""
        if get_origin(kind) in (Union, types.UnionType):
            (kind,) = (one for one in get_args(kind) if one is not type(None))
        if kind not in READERS and is_dataclass(kind):
            return self._section(node, kind, what)
        if get_origin(kind) is tuple:
            return self._list(node, get_args(kind)[0], what)
        if get_origin(kind) is Mapping:
            return {key: self.read(v, str, f"{what}.{key}") for key, v in self._pairs(node, what)}
        return self._scalar(node, kind, what)

    def _section(self, node: yaml.Node, kind: Any, what: str) -> Any:
        hints, known = get_type_hints(kind), {one.name: one for one in fields(kind)}
        values = {}
        for key, value in self._pairs(node, what):
            if key not in known:
                raise self._wrong(
                    value, f"unknown key {key!r} in {what}: known are {', '.join(known)}"
                )
            values[key] = self.read(value, hints[key], key)
        missing = [
            one.name
            for one in known.values()
            if one.default is MISSING and one.default_factory is MISSING and one.name not in values
        ]
        if missing:
            raise self._wrong(node, f"{what} lacks {' and '.join(missing)}")
        return kind(**values)

    def _pairs(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, f"{what}: 'key: value' lines expected, {_said(node)} found")
        pairs: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value in pairs:
                raise self._wrong(key, f"{key.value!r} stands in {what} twice")
            pairs[key.value] = value
        return list(pairs.items())

    def _list(self, node: yaml.Node, kind: Any, what: str) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(node, f"{what}: a list expected, {_said(node)} found")
        return tuple(self.read(item, kind, what) for item in node.value)

    def _scalar(self, node: yaml.Node, kind: Any, what: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            wanted = PLAIN.get(kind, "a word")
            raise self._wrong(node, f"{what}: {wanted} expected, {_said(node)} found")
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            if node.value not in list(kind):
                raise self._wrong(node, f"{what}: {node.value!r} is none of {', '.join(kind)}")
            return kind(node.value)
        try:
            return READERS[kind](node.value)
        except (ValueError, KeyError, InputError) as e:
            said = PLAIN[kind] + " expected" if kind in PLAIN else str(e)
            raise self._wrong(node, f"{what}: {said}, {node.value!r} found") from e

    def _wrong(self, node: yaml.Node, sentence: str) -> InputError:
        return InputError(f"{self._name}, line {node.start_mark.line + 1}: {sentence}")


def _said(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "'key: value' lines"
