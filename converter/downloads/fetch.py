"""A path or an address, as the user wrote it, to a path on this machine."""

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
