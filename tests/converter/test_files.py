"""Files appear whole or not at all."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import blake3
import pytest

from converter.errors import InputError
from converter.files import blake3_of, link_or_copy, read_json, replacing, sha256_of, write_json


def test_a_file_is_replaced_only_on_success(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replacing(path) as work:
        work.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as work:  # noqa: PT012
        work.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    left = tmp_path / f".file.{child.pid}.abc.partial"
    running = tmp_path / f".file.{os.getppid()}.abc.partial"
    others = tmp_path / ".file.notes.partial"
    for path in (left, running, others):
        path.touch()
    with replacing(tmp_path / "file") as work:
        work.touch()
    assert not left.exists()
    assert running.exists()
    assert others.exists()


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    usual = tmp_path / "usual"
    usual.touch()
    assert (tmp_path / "a.json").stat().st_mode == usual.stat().st_mode


def test_linking_falls_back_to_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_text("bytes")
    link_or_copy(source, tmp_path / "linked")
    assert (tmp_path / "linked").samefile(source)

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    link_or_copy(source, tmp_path / "copied")
    assert not (tmp_path / "copied").samefile(source)
    assert (tmp_path / "copied").read_text() == "bytes"


def test_hashes_are_right_and_follow_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    assert blake3_of(path) == blake3.blake3(b"one").hexdigest()
    assert sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("content", ["", "[]", "{", "\udcff"])
def test_unreadable_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"a\.json.*a manifest"):
        read_json(path, "a manifest")
    with pytest.raises(InputError, match="not found"):
        read_json(tmp_path / "b.json", "a manifest")
