"""A small bundle and artifacts on disk."""

from pathlib import Path

import pytest

from converter.bundle import Bundle
from targets.manifest import Manifest
from tests.validate.fakes import (
    INTERFACES,
    FakeReference,
    FakeTarget,
    Place,
    make_artifact,
    make_component,
)

VERSIONS = {"compiler": "1"}


@pytest.fixture
def reference() -> FakeReference:
    return FakeReference()


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    place = Place(tmp_path / "bundle", tmp_path / "artifacts")
    components = {name: make_component(place.bundle, name) for name in INTERFACES}
    architecture = {
        "family": "SD1.x",
        "unet": None,
        "text_encoder": {"vocabulary": 49408},
        "vae": {"scaling_factor": 0.18215},
    }
    Bundle(
        place.bundle,
        "SD1.x",
        architecture,
        "sd-lcm-tpu",
        1,
        "epsilon",
        components,
        sources=[{"role": "checkpoint", "path": "a <b> & c", "blake3": "beef"}],
        versions={"sdconv": "0.1"},
    ).save()
    place.artifacts.mkdir()
    artifacts = [make_artifact(place.artifacts, name) for name in INTERFACES]
    Manifest(place.artifacts, Path("../bundle"), INTERFACES, artifacts, versions=VERSIONS).save()
    return place
