"""Another size beside those that a folder of artifacts holds: the compilation that makes all.

`manifest.json` has the command by which each target's artifacts were made. The same command with
more sizes makes the larger set; what is compiled already comes from the cache, and targets that
keep all sizes in one file take over the weights that lie there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.errors import InputError
from converter.sizes import Size, parse_sizes
from targets.compile import CompileRequest, parse_precisions, parse_tables
from targets.manifest import Manifest


def with_sizes(
    folder: Path, sizes: Sequence[Size], target: str | None = None, bundle: Path | None = None
) -> CompileRequest:
    """The request for what `folder` holds for `target`, at `sizes` besides.

    The target may be left out where there is one, the bundle where it has not moved. Raises
    InputError.
    """
    manifest = Manifest.load(folder)
    names = list(manifest.commands)
    if target is None and len(names) > 1:
        raise InputError(f"{folder}: made for {', '.join(names)}: choose one with --target")
    chosen = target or names[0]
    if chosen not in names:
        raise InputError(
            f"{folder}: nothing for target {chosen!r} to add a size to, only for "
            f"{', '.join(names)}: compile with --sizes"
        )
    found = manifest.load_bundle(bundle).folder
    return as_before(manifest.commands[chosen], found, folder, sizes)


def as_before(
    command: Sequence[str], bundle: Path, output: Path, sizes: Sequence[Size] = ()
) -> CompileRequest:
    """What `CompileRequest.command` wrote, as a request again, with more `sizes`."""
    words = [word for word in command[2:] if word != "--static"]
    options = list(zip(words[::2], words[1::2], strict=True))
    given: Mapping[str, str] = dict(options)
    earlier = parse_sizes(given["--sizes"]) if "--sizes" in given else ()
    calibration, components = given.get("--calibration"), given.get("--components")
    return CompileRequest(
        bundle=bundle,
        target=given["--target"],
        sizes=tuple(dict.fromkeys((*earlier, *sizes))),
        output=output,
        precision=parse_precisions(given.get("--precision", "")),
        batch=int(given["-b"]) if "-b" in given else None,
        components=None if components is None else tuple(components.split(",")),
        effort=given.get("--effort", "normal"),
        calibration=None if calibration is None else Path(calibration),
        quantize_tables=parse_tables([v for name, v in options if name == "--quantize-table"]),
        static="--static" in command,
    )
