"""Saved arrays: one file per case, written whole or not at all, each knowing what it came from.

A file counts only if it holds the key it is asked for, so changed weights, artifacts or inputs
expire it by themselves; and since every case is a file of its own, an interrupted run continues
with the next case.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import InputError
from converter.files import replacing, write_json
from converter.weights import Array
from validate.base import Agreement, Check, Measurement

_ARRAY = "array/"
"""Arrays are stored under this prefix, beside the members `key` and `seconds`."""


@dataclass(frozen=True)
class CaseStore:
    """The cases of one subject in one folder, valid for one content key."""

    folder: Path
    key: str

    def path(self, case: str) -> Path:
        """The file of a case, whether or not it exists: a .npz archive."""
        return self.folder / f"{case}.npz"

    def has(self, case: str) -> bool:
        """Whether the case is saved and was made from what the key says."""
        try:
            with np.load(self.path(case)) as saved:
                return str(saved["key"]) == self.key
        except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return False

    def load(self, case: str) -> dict[str, Array]:
        """Return the arrays by port name."""
        return read_arrays(self.path(case))

    def seconds(self, case: str) -> float:
        """How long it took to make the arrays."""
        with np.load(self.path(case)) as saved:
            return float(saved["seconds"])

    def save(self, case: str, arrays: Mapping[str, Array], seconds: float) -> None:
        """Write a case. Compressed, because residual inputs are mostly zeros."""
        members = {_ARRAY + name: array for name, array in arrays.items()}
        members |= {"key": np.array(self.key), "seconds": np.array(seconds)}
        with replacing(self.path(case)) as work, work.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **members)


@dataclass(frozen=True)
class RecordStore:
    """What was found out, as JSON in one file, valid for one content key."""

    path: Path
    key: str

    def load(self) -> Any | None:
        """What was saved; None where nothing was, or for something else than the key says."""
        try:
            saved = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return None
        return saved["record"] if saved.get("key") == self.key else None

    def save(self, record: object) -> None:
        """Replace what was saved."""
        write_json(self.path, {"key": self.key, "record": record})


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of a saved case by port name."""
    with np.load(path) as saved:
        names = [name for name in saved.files if name.startswith(_ARRAY)]
        return {name.removeprefix(_ARRAY): saved[name] for name in names}


def inputs_of(check: Check) -> dict[str, Array]:
    """The inputs of a case of one component: they lie beside the reference's outputs.

    Raises InputError where they are gone.
    """
    assert check.reference is not None
    path = check.reference.parent.with_name("inputs") / check.reference.name
    if not path.is_file():
        raise InputError(f"{path}: gone: validate again")
    return read_arrays(path)


def measurement_from_json(data: Mapping[str, Any]) -> Measurement:
    """Read what `dataclasses.asdict` gives."""
    agreement = data["agreement"]
    return Measurement(**{**data, "agreement": agreement and Agreement(**agreement)})
