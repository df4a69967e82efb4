"""One file over https into the cache folder: resumable, checked, whole under its final name.

A download is continued with a Range request where the last one stopped, if the server says with
its ETag that the file is still the same (RFC 9110, If-Range). Tokens come from the environment and
go to their own host alone: the HTTP library drops them when a redirect leads to another.
"""

import hashlib
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from converter.downloads.addresses import WebFile
from converter.downloads.policy import ANYTHING, DownloadPolicy, public_transport
from converter.errors import InputError
from converter.files import read_json, require_space, sha256_of, write_json
from converter.folders import cache_folder
from converter.progress import Event, Progress

if TYPE_CHECKING:
    import httpx2

TOKENS = {"huggingface.co": "HF_TOKEN", "civitai.com": "CIVITAI_TOKEN"}
"""Host -> the environment variable that holds the token for it."""

TIMEOUT = 30.0
"""Seconds without any byte after which a connection is given up."""

CHUNK = 1 << 20
NOT_MODIFIED, PARTIAL, UNSATISFIABLE = 304, 206, 416


@dataclass(frozen=True)
class WebDownloads:
    """Downloads below `folder`. `trust` replaces the system's certificates."""

    folder: Path = field(default_factory=lambda: cache_folder() / "downloads")
    policy: DownloadPolicy = ANYTHING
    tokens: Mapping[str, str] = field(default_factory=lambda: TOKENS)
    trust: ssl.SSLContext | None = None

    def fetch(self, file: WebFile, progress: Progress) -> Path:
        """Return the file's path here, downloading what is missing of it.

        Raises InputError, saying what to do, when the server refuses or the file is not whole.
        """
        import httpx2

        place = self.folder / hashlib.sha256(file.url.encode()).hexdigest()[:16]
        place.mkdir(parents=True, exist_ok=True)
        final = place / file.name
        variable = self.tokens.get(file.host)
        with FileLock(place / ".lock"):
            if file.sha256 is not None and final.is_file() and sha256_of(final) == file.sha256:
                progress(Event(f"fetch {file.name}", 1.0, f"{file.name}: reused, same sha256"))
                return final
            try:
                with self._client() as client:
                    headers = self._headers(file)
                    _Download(file, final, client, headers, progress, variable, self.policy).run()
            except httpx2.HTTPError as e:
                raise InputError(
                    f"{file.url}: the connection failed ({type(e).__name__}): check the address "
                    "and the network, and run the same command again to go on"
                ) from e
        return final

    def _client(self) -> "httpx2.Client":
        import httpx2

        def only_https(request: "httpx2.Request") -> None:
            if request.url.scheme != "https":
                raise InputError(
                    f"{request.url.host}: a redirect away from https was refused: use an address "
                    "that stays on https"
                )

        trust = self.trust or True
        guarded = self.policy.public_only  # then without proxies, which would resolve the host
        return httpx2.Client(
            follow_redirects=True,
            timeout=TIMEOUT,
            verify=trust,
            trust_env=not guarded,
            transport=public_transport(trust) if guarded else None,
            event_hooks={"request": [only_https]},
        )

    def _headers(self, file: WebFile) -> dict[str, str]:
        token = os.environ.get(self.tokens.get(file.host, ""), "")
        # Byte ranges count the bytes of the file itself, not those of a compressed form.
        headers = {"Accept-Encoding": "identity"}
        return headers | ({"Authorization": f"Bearer {token}"} if token else {})


@dataclass(frozen=True)
class _Download:
    """One file on its way: `.NAME.part` grows, `.NAME.json` says which version it is a part of."""

    file: WebFile
    final: Path
    client: "httpx2.Client"
    headers: Mapping[str, str]
    progress: Progress
    token_variable: str | None
    policy: DownloadPolicy

    def run(self) -> None:
        part, record = (self.final.with_name(f".{self.final.name}.{e}") for e in ("part", "json"))
        known = read_json(record, "a download's record") if record.is_file() else {}
        etag = str(known.get("etag") or "")
        have = part.stat().st_size if etag and part.is_file() else 0
        headers = dict(self.headers)
        if etag and self.final.is_file():
            headers["If-None-Match"] = etag
        elif have:
            headers |= {"Range": f"bytes={have}-", "If-Range": etag}
        with self.client.stream("GET", self.file.url, headers=headers) as response:
            if response.status_code == NOT_MODIFIED:
                note = f"{self.final.name}: reused, the server has no newer one"
                self.progress(Event(f"fetch {self.final.name}", 1.0, note))
                self._check(self.final)
                return
            if response.status_code == UNSATISFIABLE:
                part.unlink(missing_ok=True)
            self._refuse(response)
            write_json(record, {"url": self.file.url, "etag": response.headers.get("ETag")})
            self._receive(response, part, have if response.status_code == PARTIAL else 0)
        self._check(part)
        part.replace(self.final)
        self.progress(Event(f"fetch {self.final.name}", 1.0))

    def _refuse(self, response: "httpx2.Response") -> None:
        if response.is_success:
            return
        variable = self.token_variable
        advice = "" if variable is None else f"put a token into {variable}, or "
        raise InputError(
            f"{self.file.url}: the server answered {response.status_code} "
            f"{response.reason_phrase}: {advice}check the address in a browser"
        )

    def _receive(self, response: "httpx2.Response", part: Path, have: int) -> None:
        """Append the body to `part`; raises InputError when fewer bytes come than announced."""
        announced = response.headers.get("Content-Length")
        total = have + int(announced) if announced else None
        self._allow(total or 0, part)
        require_space(part.parent, (total or 0) - have, f"fetching {self.final.name}")
        with part.open("r+b" if have else "wb") as out:
            out.seek(have)
            for chunk in response.iter_raw(CHUNK):
                self._allow(out.tell() + len(chunk), part)
                out.write(chunk)
                if total:
                    done = min(out.tell() / total, 0.999)
                    self.progress(Event(f"fetch {self.final.name}", done))
            size = out.tell()
        if total is not None and size != total:
            raise InputError(
                f"{self.file.url}: only {size} of {total} bytes came: run the same command "
                "again to go on"
            )

    def _allow(self, nbytes: int, part: Path) -> None:
        """Raise InputError when the file is larger than allowed; nothing of it is kept."""
        try:
            self.policy.check_size(nbytes, self.file.url)
        except InputError:
            part.unlink(missing_ok=True)
            raise

    def _check(self, path: Path) -> None:
        """Compare the SHA-256, where one was given; a wrong file is removed."""
        if self.file.sha256 is None:
            return
        found = sha256_of(path)
        if found != self.file.sha256:
            path.unlink()
            raise InputError(
                f"{self.file.url}: its sha256 is {found}, {self.file.sha256} was expected: it was "
                "removed; check the address and the checksum"
            )
