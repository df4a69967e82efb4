"""A page without the web: a root folder with two models, and its visitors."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.bundle import Bundle
from sdconv.page.desk import Desk
from sdconv.page.limits import Limits
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace
from tests.conftest import SmallModel

MINUTE = 60.0
"""Seconds that a test waits for a run at most."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "root")


@pytest.fixture
def models(workspace: Workspace, small_model: SmallModel) -> Workspace:
    """With a checkpoint and a LoRA for it."""
    shutil.copyfile(small_model.checkpoint, workspace.root / "small.safetensors")
    shutil.copyfile(small_model.lora, workspace.root / "style.safetensors")
    return workspace


@pytest.fixture
def desk(workspace: Workspace) -> Iterator[Desk]:
    desk = Desk(workspace, Limits())
    yield desk
    desk.close()


@pytest.fixture
def ann() -> Visitor:
    return Visitor("browser ann")


@pytest.fixture
def ben() -> Visitor:
    return Visitor("browser ben")


def uploaded(workspace: Workspace, name: str, source: Path | None = None) -> Path:
    """As Gradio puts an upload: below a folder whose name cannot be guessed."""
    folder = workspace.uploads / f"{abs(hash(name)):064x}"
    folder.mkdir(exist_ok=True)
    path = folder / name
    if source is None:
        path.write_bytes(name.encode())
    else:
        shutil.copyfile(source, path)
    return path


@pytest.fixture
def small_bundle_folder(small_bundle: Bundle) -> str:
    """Profile sd-lcm-tpu, one LoRA merged."""
    return str(small_bundle.folder)
