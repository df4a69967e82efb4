"""Recipe -> YAML, as `sdconv.recipe.reading` reads it."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from typing import Any

import yaml

from converter.sizes import Size
from sdconv.recipe.recipe import Recipe, given


def recipe_yaml(recipe: Recipe) -> str:
    """The text of a recipe, with what differs from the defaults."""
    values = {"export": _plain(recipe.export), **_plain(recipe)}
    text: str = yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, (StrEnum, Size)):
        return str(value)
    if is_dataclass(value):
        return {name: _plain(one) for name, one in given(value).items()}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
