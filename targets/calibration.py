"""Calibration data: what components were fed while a bundle drew. INT8 takes its ranges from them.

    calibration/<hash>/inputs.json             what it was made from
    calibration/<hash>/unet/0000.npz           one run's inputs, by port name
    calibration/<hash>/vae_decoder/0000.npz    ...

`<hash>` is that of everything it was made from: the weights, the prompts, the sampling, one picture
size and batch. `runtime.calibration` makes it.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from converter.bundle import Bundle
from converter.cache import Cache, Entry, content_key, read_entry
from converter.errors import InputError
from converter.files import blake3_of
from converter.sizes import Size


@dataclass(frozen=True)
class CalibrationData:
    """The inputs of one component at one size and batch: every .npz file of `folder`.

    `content` is the hash of what the files hold, `count` how many there are.
    """

    folder: Path
    content: str
    count: int

    @classmethod
    def of(cls, folder: Path) -> "CalibrationData":
        """Describe a folder of .npz files."""
        files = sorted(folder.glob("*.npz"))
        digests = {file.name: blake3_of(file) for file in files}
        return cls(folder.absolute(), content_key(digests), len(files))


def calibrations(folder: Path) -> Cache:
    """The store of calibration data at a folder of the user's."""
    folder = folder.absolute()
    return Cache(folder.name, folder.parent)


def command(bundle: Bundle, size: Size | None, batch: int, folder: Path) -> str:
    """The command that makes the data."""
    words = ["sdconv", "calibrate", str(bundle.folder), "--sizes", str(size or "512x512")]
    words += ["-b", str(batch)] if batch != bundle.batch else []
    return shlex.join([*words, "-o", str(folder)])


def find_data(
    folder: Path, bundle: Bundle, component: str, size: Size | None, batch: int
) -> CalibrationData:
    """The inputs of a component of this very bundle, in a store or one entry of it.

    A component without a size takes those of any. Raises InputError with what to do when there
    are none, or when several fit.
    """
    entries = _entries(folder)
    wanted = f"{component} at {size}" if size is not None else component
    fitting = [entry for entry in entries if _fits(entry, bundle, component, size, batch)]
    if not fitting:
        again = command(bundle, size, batch, _store_of(folder))
        raise InputError(
            f"{folder}: no calibration data of {wanted}, batch {batch}, with the weights that "
            f"{bundle.folder} holds now: run '{again}'"
        )
    described = [CalibrationData.of(entry.path / component) for entry in fitting]
    found = {data.content: data for data in described}
    if len(found) > 1:
        names = ", ".join(str(data.folder.parent) for data in found.values())
        raise InputError(f"{folder}: several calibrations of {wanted}: name one of {names}")
    (data,) = found.values()
    return data


def _entries(folder: Path) -> list[Entry]:
    if (folder / "inputs.json").is_file():
        return [read_entry(folder)]
    return calibrations(folder).entries()


def _store_of(folder: Path) -> Path:
    return folder.parent if (folder / "inputs.json").is_file() else folder


def _fits(entry: Entry, bundle: Bundle, component: str, size: Size | None, batch: int) -> bool:
    made_from = entry.inputs
    keys = {component: bundle.components[component].weights_key}
    return (
        keys.items() <= json.loads(made_from["weights"]).items()
        and any((entry.path / component).glob("*.npz"))
        and (size is None or (made_from["size"], made_from["batch"]) == (str(size), str(batch)))
    )
