"""A server on this machine, over real https, that can stop half-way and redirect."""

import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest
import trustme


@dataclass
class Server:
    """What it serves, what it was asked, and how it misbehaves."""

    port: int = 0
    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    chunked: set[str] = field(default_factory=set)
    stop_after: int | None = None
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str, host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.state.requests.append((self.path, headers))
        if self.path in self.state.redirects:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.state.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path not in self.state.files:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(self.state.files[self.path], with_body=with_body)

    def _send(self, content: bytes, *, with_body: bool) -> None:
        etag = f'"{hash(content)}"'
        if self.headers.get("If-None-Match") == etag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.end_headers()
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted and self.headers.get("If-Range", etag) == etag else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if begin else HTTPStatus.OK)
        self.send_header("ETag", etag)
        if self.path not in self.state.chunked:  # else the end of the connection ends the body
            self.send_header("Content-Length", str(len(content) - begin))
        for name, value in self.state.headers.get(self.path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content[begin:][: self.state.stop_after])


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    made = Server()

    class Bound(Handler):
        state = made

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(identity)
    listening.socket = identity.wrap_socket(listening.socket, server_side=True)
    authority.configure_trust(made.trust)
    made.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder, and no token in the environment."""
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    for variable in ("HF_TOKEN", "CIVITAI_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "home"
