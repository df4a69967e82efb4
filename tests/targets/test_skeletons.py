"""Archives of skeletons: what goes in comes out, and what does not belong in one is refused."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from converter.bundle import Bundle
from converter.cache import SKELETONS, Cache, read_entry
from converter.errors import InputError
from sdconv.main import run
from targets.skeletons import export_skeletons, import_skeletons


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))

    def build(folder: Path) -> None:
        (folder / "model.bmodel").write_bytes(b"x" * 100)

    cache = Cache(SKELETONS)
    return [cache.make(f"unet {i}", {"size": str(i)}, build).path for i in range(3)]


def archive_of(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with lzma.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return path


def test_there_and_back(
    entries: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "two.tar.xz"
    export_skeletons(entries[:2], archive)
    again = tmp_path / "again.tar.xz"
    export_skeletons(entries[:2], again)
    assert archive.read_bytes() == again.read_bytes()
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "elsewhere"))
    taken = import_skeletons(archive)
    assert {entry.path.name for entry in taken} == {path.name for path in entries[:2]}
    for entry in taken:
        here = read_entry(tmp_path / "home" / "cache" / SKELETONS / entry.path.name)
        assert (entry.label, entry.inputs) == (here.label, here.inputs)
        assert (entry.path / "model.bmodel").read_bytes() == b"x" * 100
    assert import_skeletons(archive) == taken


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../../escaped/inputs.json": b"{}"}, "does not belong"),
        ({"a/b/c": b""}, "does not belong"),
        ({"alone": b""}, "does not belong"),
        ({}, "no skeleton in it"),
        ({f"{'0' * 32}/inputs.json": b'{"label": "x", "inputs": {"a": "b"}}'}, "not the hash"),
        ({f"{'0' * 32}/inputs.json": b"[]"}, "a JSON object was expected"),
        ({f"{'0' * 32}/inputs.json": b'{"label": 1}'}, "it has no 'inputs'"),
        ({f"{'0' * 32}/model.bmodel": b""}, "not found"),
    ],
)
def test_what_is_no_skeleton_is_refused(
    files: dict[str, bytes], said: str, entries: list[Path], tmp_path: Path
) -> None:
    before = sorted(Cache(SKELETONS).folder.iterdir())
    with pytest.raises(InputError, match=said):
        import_skeletons(archive_of(tmp_path / "a.tar.xz", files))
    assert sorted(Cache(SKELETONS).folder.iterdir()) == before
    assert not (tmp_path / "escaped").exists()


def test_links_are_refused(entries: list[Path], tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar.xz", {"a/b": b""}, tarfile.SYMTYPE)
    with pytest.raises(InputError, match="does not belong"):
        import_skeletons(archive)


def test_damaged_archives_are_refused(entries: list[Path], tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.xz"
    export_skeletons(entries, archive)
    whole = archive.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        archive.write_bytes(content)
        with pytest.raises(InputError, match="not an archive of 'sdconv skeleton export'"):
            import_skeletons(archive)
    with pytest.raises(InputError, match="not an archive"):
        import_skeletons(tmp_path / "none")


def test_the_commands(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = str(tmp_path / "skeletons.tar.xz")
    words = ["skeleton", "export", archive, "-n", str(small_bundle.folder), "-t", "onnxruntime"]
    assert run([*words, "--sizes", "64x192"]) == 2
    said = capsys.readouterr().err
    assert "not compiled yet: " in said
    assert "unet 64x192 f32" in said
    assert f"sdconv compile -n {small_bundle.folder} --target onnxruntime --sizes 64x192" in said
    compiled = ["compile", "-n", str(small_bundle.folder), "-t", "onnxruntime", "--no-validate"]
    assert run([*compiled, "--sizes", "64x64", "-o", str(tmp_path / "artifacts")]) == 0
    assert run([*words, "--sizes", "64x64"]) == 0
    assert "4 skeletons" in capsys.readouterr().out
    assert run(["skeleton", "import", archive]) == 0
    assert "onnxruntime unet 64x64 f32" in capsys.readouterr().out
    assert run(["skeleton", "list"]) == 0
    assert "sdconv" in capsys.readouterr().out
