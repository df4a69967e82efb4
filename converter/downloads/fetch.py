"""A path or an address, as the user wrote it, to a path on this machine."""

from pathlib import Path

from converter.downloads.addresses import HubFile, parse_address
from converter.downloads.hub import HubDownloads
from converter.downloads.policy import ANYTHING, DownloadPolicy
from converter.downloads.web import WebDownloads
from converter.folders import cache_folder
from converter.progress import Progress, silent


def local_path(
    text: str,
    variant: str | None = None,
    progress: Progress = silent,
    *,
    folder: Path | None = None,
    policy: DownloadPolicy = ANYTHING,
) -> Path:
    """Return the path itself, or fetch the address and return where it is now.

    It is kept below `folder`, None for the cache folder. `variant` chooses among the precisions of
    a diffusers repository. Raises InputError for an address that cannot be fetched.
    """
    address = parse_address(text)
    if address is None:
        return Path(text)
    place = folder or cache_folder()
    if isinstance(address, HubFile):
        return HubDownloads(place / "hub", policy=policy).fetch(address, variant, progress)
    return WebDownloads(place / "downloads", policy).fetch(address, progress)
