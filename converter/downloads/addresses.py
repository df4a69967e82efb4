"""Spellings of a file that is not on this machine.

https://host/path/model.safetensors              any file
https://host/path/model.safetensors#sha256=HEX   the same, checked
hf:owner/name                                    a repository of the Hugging Face hub
hf:owner/name/path/model.safetensors             one file of it
hf:owner/name@revision[/path]                    at a branch, tag or commit

Addresses of pages, as they are copied out of a browser, stand for what they show: a repository or
file of the hub, and a version of a model on Civitai.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from converter.errors import InputError

SECRETS = re.compile(r"token|secret|password|api_?key", re.IGNORECASE)
"""Query parameters that must not be written down."""


HUB_PAGE = re.compile(
    r"https://(?:huggingface\.co|hf\.co)/(?P<repository>(?!api/|datasets/|spaces/)[\w.-]+/[\w.-]+)/?"
    r"(?:(?:tree|blob)/(?P<revision>[\w.-]+)(?:/(?P<path>[^?#]*[^?#/]))?/?)?(?:\?[^#]*)?"
)
CIVITAI_PAGE = re.compile(r"https://civitai\.com/models/[^?#]*\?(?:[^#]*&)?modelVersionId=(\d+).*")

FILES = {".safetensors", ".safetensor", ".ckpt", ".pt", ".pth", ".bin"}
"""Endings of files: a name that has one is no repository's."""


@dataclass(frozen=True)
class WebFile:
    """An https address without its fragment, and the SHA-256 its file must have, if given."""

    url: str
    sha256: str | None

    @property
    def host(self) -> str:
        """The host's name, without port."""
        return urlsplit(self.url).hostname or ""

    @property
    def name(self) -> str:
        """The file's name: the last segment of the path, with plain characters only."""
        last = urlsplit(self.url).path.rstrip("/").rpartition("/")[2]
        return re.sub(r"[^\w.-]", "_", last).lstrip(".") or "file"


@dataclass(frozen=True)
class HubFile:
    """A repository of the hub, or (`path` given) one file of it."""

    repository: str
    revision: str
    path: str | None


def parse_address(text: str) -> WebFile | HubFile | None:
    """Read an address; None for anything else, which is a path.

    Raises InputError for an address that is not safe or not whole.
    """
    if text.startswith("hf:"):
        return _hub_file(text)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return None
    if scheme.lower() != "https":
        raise InputError(f"{text}: only https:// addresses are fetched: use one, or a local file")
    if (page := HUB_PAGE.fullmatch(text)) is not None:
        revision = f"@{page['revision']}" if page["revision"] else ""
        path = f"/{page['path']}" if page["path"] else ""
        return _hub_file(f"hf:{page['repository']}{revision}{path}")
    if (version := CIVITAI_PAGE.fullmatch(text)) is not None:
        return _web_file(f"https://civitai.com/api/download/models/{version[1]}")
    return _web_file(text)


def looks_like_repository(text: str) -> bool:
    """Whether a path that leads nowhere, ``owner/name``, may be one on the hub."""
    path = Path(text)
    bare = re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and path.suffix not in FILES
    return bare and not path.exists() and not path.parent.exists()


def _web_file(text: str) -> WebFile:
    address, _, fragment = text.partition("#")
    try:
        parts = urlsplit(address)
        host, secret_place = parts.hostname, parts.username or parts.password
    except ValueError as e:
        raise InputError(f"an address that cannot be read ({e}): write https://host/file") from e
    if not host:
        raise InputError("an https:// address without a host: write https://host/file")
    if secret_place or any(SECRETS.search(name) for name, _ in parse_qsl(parts.query)):
        raise InputError(  # without the address: it would put the secret into a log
            f"an address at {host} with a secret in it: take it out, and put the token into the "
            "environment (HF_TOKEN or CIVITAI_TOKEN)"
        )
    key, _, digest = fragment.partition("=")
    if fragment and (key != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest)):
        raise InputError(
            f"{address}: {fragment!r} is no checksum: end the address with #sha256= and 64 "
            "hexadecimal digits"
        )
    return WebFile(address, digest.lower() or None)


def _hub_file(text: str) -> HubFile:
    match = re.fullmatch(
        r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<path>.+))?", text
    )
    if match is None or ".." in text.split("/"):
        raise InputError(
            f"{text}: not a hub address: write hf:owner/name, or hf:owner/name/path/to/file"
        )
    return HubFile(match["repository"], match["revision"] or "main", match["path"])
