"""What a visitor may name, and what he is offered."""

from pathlib import Path

import pytest

from converter.errors import InputError
from sdconv.page.workspace import Workspace, clean_name
from tests.sdconv.page.conftest import uploaded


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/etc/passwd", "link.safetensors", "away/outside.safetensors",
     "model/../../outside.safetensors", "loop", "", ".", "..", "a\0b", "x" * 5000,
     "jobs", "uploads", "downloads", "jobs/1/bundle", "jobs/../jobs/1", "downloads/a",
     "uploads/guess", "%2e%2e/outside.safetensors", "~/x", "file:///etc/passwd",
     "sharded/model.safetensors.index.json", "diffusers"],
)  # fmt: skip
def test_nothing_else_can_be_named(workspace: Workspace, name: str) -> None:
    root = workspace.root
    outside = root.parent / "outside.safetensors"
    outside.write_bytes(b"secret")
    (root / "link.safetensors").symlink_to(outside)
    (root / "away").symlink_to(outside.parent)
    (root / "loop").symlink_to("loop")
    (root / "model").mkdir()
    (root / "jobs" / "1" / "bundle").mkdir(parents=True)
    (root / "downloads" / "a").write_bytes(b"")
    (root / "uploads" / "guess").mkdir()
    sharded = root / "sharded"  # a shard that leads outside
    sharded.mkdir()
    (sharded / "model.safetensors.index.json").write_text("{}")
    (sharded / "model-00001-of-00001.safetensors").symlink_to(outside)
    (root / "diffusers" / "unet").mkdir(parents=True)  # a part that leads outside
    (root / "diffusers" / "unet" / "config.json").write_text("{}")
    (root / "diffusers" / "vae").symlink_to(outside.parent)
    with pytest.raises(InputError, match="no such file or folder below the root folder"):
        workspace.find(name)


def test_what_lies_outside_is_answered_like_what_does_not_exist(workspace: Workspace) -> None:
    there, missing = workspace.root.parent / "there", workspace.root.parent / "nope"
    there.write_text("x")
    said = []
    for path in (there, missing):
        with pytest.raises(InputError) as error:
            workspace.find(str(path))
        said.append(str(error.value).replace(path.name, "*"))
    assert said[0] == said[1]


def test_files_below_it_are_found_however_they_are_written(workspace: Workspace) -> None:
    path = workspace.root / "a.safetensors"
    path.write_bytes(b"")
    (workspace.root / "inside").symlink_to(path)
    for text in ("a.safetensors", str(path), "jobs/../a.safetensors", "inside"):
        assert workspace.find(text) == path


def test_uploads_are_found_by_their_whole_path_alone(workspace: Workspace) -> None:
    path = uploaded(workspace, "a.safetensors")
    assert workspace.find(str(path)) == path
    assert workspace.is_upload(path)
    with pytest.raises(InputError):
        workspace.find(str(path.parent))
    assert workspace.offered() == []


def test_models_are_offered_whatever_holds_them(workspace: Workspace) -> None:
    root = workspace.root
    for name in (
        "b.safetensors", "sub/a.ckpt", "notes.txt", ".hidden/x.safetensors",
        "m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors",
        "m.safetensors.index.json", "sd/unet/config.json", "sd/unet/x.safetensors",
        "lora/adapter_model.safetensors", "out/bundle.json", "out/unet/w.bin",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    (root / "away.safetensors").symlink_to("/etc/passwd")
    assert workspace.offered() == [
        "b.safetensors", "lora", "m.safetensors.index.json", "sd", "sub/a.ckpt"
    ]  # fmt: skip
    assert workspace.bundles() == ["out"]


def test_a_root_that_cannot_be_used_is_a_readable_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="cannot be used as the root folder"):
        Workspace.at(file / "root")
    root = tmp_path / "linked"
    root.mkdir()
    (root / "jobs").symlink_to(tmp_path)
    with pytest.raises(InputError, match="symbolic link"):
        Workspace.at(root)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("model v1.5.safetensors", "model_v1.5.safetensors"),
        ("../../etc/passwd", "passwd.safetensors"),
        ("<script>.html", "script_.html.safetensors"),
        ("--output.ckpt", "output.ckpt"),
        ("....", "file.safetensors"),
        ("x.GGUF", "x.gguf"),
        ("input:x.pt", "input_x.pt"),
        ("模型.safetensors", "file.safetensors"),
        ("a" * 300 + ".bin", "a" * 100 + ".bin"),
    ],
)
def test_names_of_uploads_are_cleaned(name: str, clean: str) -> None:
    assert clean_name(name) == clean
    assert clean_name(clean) == clean
