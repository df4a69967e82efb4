"""Putting a vendor's environment in place: under a temporary name, recorded, renamed when whole."""

import datetime as dt
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from converter.folders import cache_folder

RECORD_FILE = "toolchain.json"
"""Written last when an environment is built: versions, Python, date."""


@dataclass(frozen=True)
class Building:
    """An environment that is being built in `work`; `log` outlives a failed build."""

    work: Path
    log: Path


@contextmanager
def new_environment(final: Path) -> Iterator[Building]:
    """Build what will be `final`; it gets its name when the block ends without an error."""
    final.parent.mkdir(parents=True, exist_ok=True)
    log = cache_folder() / "failures" / f"install-{final.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # that of the previous attempt
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        yield Building(work, log)
        shutil.copyfile(log, work / "install.log")
        _put_in_place(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_record(
    folder: Path, name: str, version: str, python: Path, env: Mapping[str, str]
) -> None:
    """Say in `folder` what was built, by which Python, with which packages."""
    freeze = subprocess.run(
        [
            *(folder / "bin" / "python", "-m", "pip"),
            *("--disable-pip-version-check", "freeze", "--all"),
        ],
        env=dict(env),
        capture_output=True,
        text=True,
        check=True,
    )
    record = {
        "schema": 1,
        "name": name,
        "version": version,
        "python": str(python),
        "sdconv": metadata.version("sdconv") if _is_installed("sdconv") else "source tree",
        "glibc": " ".join(platform.libc_ver()),
        "built": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "packages": freeze.stdout.split(),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _put_in_place(work: Path, final: Path) -> None:
    """Rename; an older environment is moved aside first and removed last."""
    work.chmod(0o755)  # mkdtemp's folders are private; an installation may be shared
    old = Path(tempfile.mkdtemp(prefix=f".{final.name}-old-", dir=final.parent))
    try:
        if final.exists():
            final.rename(old / final.name)
        work.rename(final)
    finally:
        shutil.rmtree(old, ignore_errors=True)
