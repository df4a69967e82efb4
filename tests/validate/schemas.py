"""Holds JSON against the schemas that describe our reports to other programs."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator


def problems(value: Any, schema: Path) -> list[str]:
    """Every place of `value` that is not as the schema file says, in words."""
    rules = json.loads(schema.read_text())
    Draft202012Validator.check_schema(rules)
    found = Draft202012Validator(rules).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]
