"""What strangers may make this machine fetch: public hosts only, wherever names lead."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.downloads.addresses import WebFile, parse_address
from converter.downloads.fetch import local_path
from converter.downloads.policy import DownloadPolicy, is_public, public_addresses
from converter.downloads.web import WebDownloads
from converter.errors import InputError
from converter.progress import silent
from tests.converter.downloads.conftest import Server

CONTENT = bytes(range(256)) * 64
PATH = "/files/model.safetensors"
GUARDED = DownloadPolicy(public_only=True)
PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1",  # noqa: S104  (nothing is bound)
      "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
     "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff0e::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
     "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1"],
)  # fmt: skip
def test_what_not_everybody_reaches_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "100.128.0.1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0", "::1", "[::1]"]
)
def test_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises((InputError, OSError)):
        public_addresses(host, 443)


def test_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, lambda _: [PUBLIC, "10.0.0.7"])
    with pytest.raises(InputError, match="not a public host"):
        public_addresses("two-faced.example", 443)


def resolve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> list[str]:
    """Answer name look-ups; returns the hosts that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        if host[0].isdigit():  # the connection to an address that was checked
            return real(host, port, *arguments, **options)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer(host)]

    monkeypatch.setattr("converter.downloads.policy.socket.getaddrinfo", look_up)
    return asked


@pytest.fixture
def world(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Connections that were begun; those to PUBLIC end at the server of this test."""
    server.files[PATH] = CONTENT
    began: list[tuple[str, int]] = []
    connect = socket.create_connection

    def recorded(address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        began.append(address)
        there = "127.0.0.1" if address[0] == PUBLIC else address[0]
        return connect((there, server.port), *arguments, **options)

    monkeypatch.setattr(socket, "create_connection", recorded)
    return began


def guarded(server: Server, folder: Path, largest: int | None = None) -> WebDownloads:
    return WebDownloads(folder, DownloadPolicy(True, largest), trust=server.trust)


def fetch(downloads: WebDownloads, url: str) -> Path:
    address = parse_address(url)
    assert isinstance(address, WebFile)
    return downloads.fetch(address, silent)


def test_the_connection_goes_to_the_address_that_was_checked(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that answers otherwise the second time (DNS rebinding) is asked once."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    asked = resolve(monkeypatch, lambda _: next(answers))
    path = fetch(guarded(server, tmp_path), server.url(PATH))
    assert path.read_bytes() == CONTENT
    assert asked == ["localhost"]
    assert [host for host, _ in world] == [PUBLIC]
    assert server.requests[0][1]["host"] == f"localhost:{server.port}"


def test_the_certificate_must_be_the_hosts_own(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, lambda _: [PUBLIC])
    with pytest.raises(InputError, match="connection failed"):
        fetch(guarded(server, tmp_path), server.url(PATH, host="elsewhere.example"))
    assert [host for host, _ in world] == [PUBLIC]
    assert server.requests == []


def test_a_redirect_to_a_private_host_is_refused(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, lambda host: ["169.254.169.254" if host == "metadata" else PUBLIC])
    server.redirects["/away"] = "https://metadata/latest"
    with pytest.raises(InputError, match="metadata: not a public host"):
        fetch(guarded(server, tmp_path), server.url("/away"))
    assert [host for host, _ in world] == [PUBLIC]


def test_a_redirect_on_a_public_host_is_followed(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, lambda _: [PUBLIC])
    server.redirects["/here"] = PATH
    assert fetch(guarded(server, tmp_path), server.url("/here")).read_bytes() == CONTENT


def test_the_next_address_is_tried_when_one_does_not_answer(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, lambda _: ["8.8.8.8", PUBLIC])
    connect = socket.create_connection

    def refusing(address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        if address[0] == "8.8.8.8":
            raise ConnectionRefusedError
        return connect(address, *arguments, **options)

    monkeypatch.setattr(socket, "create_connection", refusing)
    assert fetch(guarded(server, tmp_path), server.url(PATH)).read_bytes() == CONTENT


def test_this_machine_is_not_connected_to(
    server: Server, world: list[tuple[str, int]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="localhost: not a public host"):
        fetch(guarded(server, tmp_path), server.url(PATH))
    assert world == []


def test_proxies_of_the_environment_are_not_used(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would resolve the host themselves."""
    resolve(monkeypatch, lambda _: [PUBLIC])
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetch(guarded(server, tmp_path), server.url(PATH)).read_bytes() == CONTENT


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_is_allowed_is_refused_and_removed(
    server: Server,
    world: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    announced: bool,
) -> None:
    resolve(monkeypatch, lambda _: [PUBLIC])
    if not announced:
        server.chunked.add(PATH)
    downloads = guarded(server, tmp_path, largest=len(CONTENT) - 1)
    with pytest.raises(InputError, match="may be fetched here"):
        fetch(downloads, server.url(PATH))
    kept = [p.name for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert kept == []
    assert fetch(guarded(server, tmp_path, len(CONTENT)), server.url(PATH)).is_file()


def test_the_command_line_fetches_what_it_likes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[PATH] = CONTENT
    assert fetch(WebDownloads(tmp_path, trust=server.trust), server.url(PATH)).is_file()


def test_a_policy_reaches_both_kinds_of_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, DownloadPolicy]] = []

    def fetch_web(self: Any, *_: object) -> Path:
        seen.append((self.folder, self.policy))
        return tmp_path

    monkeypatch.setattr("converter.downloads.fetch.WebDownloads.fetch", fetch_web)
    monkeypatch.setattr("converter.downloads.fetch.HubDownloads.fetch", fetch_web)
    for text in ("https://host/file", "hf:owner/name"):
        local_path(text, folder=tmp_path, policy=GUARDED)
    assert seen == [(tmp_path / "downloads", GUARDED), (tmp_path / "hub", GUARDED)]
