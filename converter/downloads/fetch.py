"""A path or an address, as the user wrote it, to a path on this machine."""

import re
from pathlib import Path

from converter.downloads.addresses import HubFile, parse_address
from converter.downloads.hub import HubDownloads
from converter.downloads.web import WebDownloads
from converter.progress import Progress, silent


def local_path(text: str, variant: str | None = None, progress: Progress = silent) -> Path:
    """Return the path itself, or fetch the address into the cache folder and return that path.

    `variant` chooses among the precisions of a diffusers repository. Raises InputError for an
    address that cannot be fetched.
    """
    address = parse_address(text)
    if address is None:
        return Path(text)
    if isinstance(address, HubFile):
        return HubDownloads().fetch(address, variant, progress)
    return WebDownloads().fetch(address, progress)


def local_adapter(text: str, progress: Progress = silent) -> str:
    """The same for an adapter's ``FILE[:SCALE]``: the file local, the scale as it was."""
    if parse_address(text) is None:
        return text
    address, _, scale = text.rpartition(":")
    if not re.fullmatch(r"-?\d*\.?\d+", scale):
        address, scale = text, "1"
    return f"{local_path(address, progress=progress)}:{scale}"
