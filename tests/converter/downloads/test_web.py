"""Downloads: whole or resumed, checked, and no token where it does not belong."""

import hashlib
from pathlib import Path

import pytest

from converter.downloads.addresses import WebFile, parse_address
from converter.downloads.web import WebDownloads
from converter.errors import InputError
from converter.progress import Event, silent
from tests.converter.downloads.conftest import Server

CONTENT = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/files/model.safetensors"


@pytest.fixture
def downloads(server: Server, home: Path) -> WebDownloads:
    server.files[PATH] = CONTENT
    return WebDownloads(trust=server.trust, tokens={"localhost": "HF_TOKEN"})


def fetch(downloads: WebDownloads, url: str) -> Path:
    address = parse_address(url)
    assert isinstance(address, WebFile)
    return downloads.fetch(address, silent)


def left(downloads: WebDownloads) -> list[str]:
    return sorted(p.name for p in downloads.folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_a_file_is_fetched_with_progress_and_once(server: Server, downloads: WebDownloads) -> None:
    address = parse_address(server.url(PATH) + f"#sha256={SHA256.upper()}")
    assert isinstance(address, WebFile)
    seen: list[Event] = []
    path = downloads.fetch(address, seen.append)
    assert path.read_bytes() == CONTENT
    assert path.name == "model.safetensors"
    done = [event.done for event in seen]
    assert done == sorted(done)
    assert done[-1] == 1
    assert downloads.fetch(address, silent) == path
    assert len(server.requests) == 1


def test_without_a_checksum_the_server_is_asked_whether_it_changed(
    server: Server, downloads: WebDownloads
) -> None:
    path = fetch(downloads, server.url(PATH))
    before = path.stat().st_mtime_ns
    assert fetch(downloads, server.url(PATH)).stat().st_mtime_ns == before
    assert len(server.requests) == 2
    server.files[PATH] = b"new"
    assert fetch(downloads, server.url(PATH)).read_bytes() == b"new"


def test_a_broken_download_goes_on_where_it_stopped(
    server: Server, downloads: WebDownloads
) -> None:
    server.stop_after = 1_500_000
    with pytest.raises(InputError, match="run the same command again to go on"):
        fetch(downloads, server.url(PATH))
    assert left(downloads) == [".model.safetensors.json", ".model.safetensors.part"]
    server.stop_after = None
    assert fetch(downloads, server.url(PATH)).read_bytes() == CONTENT
    begin = int(server.requests[-1][1]["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin <= 1_500_000


def test_a_part_of_another_version_is_not_continued(
    server: Server, downloads: WebDownloads
) -> None:
    server.stop_after = 1_500_000
    with pytest.raises(InputError):
        fetch(downloads, server.url(PATH))
    server.stop_after, server.files[PATH] = None, CONTENT[::-1]
    assert fetch(downloads, server.url(PATH)).read_bytes() == CONTENT[::-1]


def test_a_wrong_checksum_removes_the_file(server: Server, downloads: WebDownloads) -> None:
    with pytest.raises(InputError, match=f"sha256 is {SHA256}, 0000.* was expected"):
        fetch(downloads, server.url(PATH) + "#sha256=" + 64 * "0")
    assert left(downloads) == [".model.safetensors.json"]


def test_a_token_goes_to_its_host_alone(
    server: Server, downloads: WebDownloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.redirects["/gate"] = server.url(PATH, host="127.0.0.1")
    path = fetch(downloads, server.url("/gate"))
    (_, first), (_, second) = server.requests
    assert first["authorization"] == "Bearer hf_secret"
    assert "authorization" not in second
    fetch(downloads, server.url(PATH, host="127.0.0.1"))
    assert "authorization" not in server.requests[-1][1]
    for kept in path.parent.rglob("*"):
        assert b"hf_secret" not in kept.read_bytes()


def test_a_redirect_away_from_https_is_refused(server: Server, downloads: WebDownloads) -> None:
    server.redirects["/plain"] = f"http://localhost:{server.port}{PATH}"
    with pytest.raises(InputError, match="away from https"):
        fetch(downloads, server.url("/plain"))
    assert len(server.requests) == 1


def test_a_refusal_names_what_to_do(
    server: Server, downloads: WebDownloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"answered 404.*HF_TOKEN"):
        fetch(downloads, server.url("/nothing"))
    with pytest.raises(InputError, match="connection failed"):
        fetch(downloads, "https://localhost:1/x")
    with pytest.raises(InputError, match="connection failed"):  # a certificate nobody trusts
        fetch(WebDownloads(), server.url(PATH))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="make room"):
        fetch(downloads, server.url(PATH))
    assert "model.safetensors" not in left(downloads)
